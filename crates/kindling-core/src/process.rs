//! Ends the process.

/// Ends the process at once, without waiting for its threads or running exit handlers.
///
/// `std::process::exit` runs those handlers, and libuv's wait for the calls on its threads.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: `_exit` accesses no memory of this process, and the kernel ends all of its threads.
    unsafe { libc::_exit(code) }
}
