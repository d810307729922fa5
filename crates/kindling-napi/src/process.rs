//! Ends the process.

/// Ends the process at once with exit code `code`, without waiting for calls on other threads.
#[napi(catch_unwind, ts_return_type = "never")]
pub fn exit_now(code: i32) {
    kindling_core::process::exit_now(code);
}
