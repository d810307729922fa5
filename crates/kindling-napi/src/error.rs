//! Errors on their way to JavaScript: the code stands before the message, and `src/errors.ts` makes them one class.

use kindling_core::Error;

/// The engine's error as Node-API carries it: `ERR_CODE: message`.
pub fn to_napi(error: Error) -> napi::Error {
    napi::Error::from_reason(format!("{}: {error}", error.code()))
}

/// What a caught panic says of itself, as an internal error.
pub fn from_panic(panic: &(dyn std::any::Any + Send)) -> Error {
    let message = panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "panic without a message".to_owned());
    Error::Internal(message)
}
