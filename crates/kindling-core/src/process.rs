//! Ending the process.

/// Ends the process at once, without waiting for its threads and without running exit handlers.
///
/// `std::process::exit` runs them, and those of libuv wait for the calls on its threads.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: `_exit` takes no memory of ours, and the kernel ends every thread with the process.
    unsafe { libc::_exit(code) }
}
