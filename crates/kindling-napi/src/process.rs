//! Ending the process.

/// Ends the process with an exit code, at once: without waiting for calls that run on other threads.
#[napi(catch_unwind, ts_return_type = "never")]
pub fn exit_now(code: i32) {
    kindling_core::process::exit_now(code);
}
