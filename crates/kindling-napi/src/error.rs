//! Converts the engine's errors for JavaScript, where `src/errors.ts` turns them into
//! `KindlingError`.

use kindling_core::Error;

/// Returns the error as Node-API carries it, with the text `ERR_CODE: message`.
pub fn to_napi(error: Error) -> napi::Error {
    napi::Error::from_reason(format!("{}: {error}", error.code()))
}

/// Returns an internal error with the message of a caught panic.
pub fn from_panic(panic: &(dyn std::any::Any + Send)) -> Error {
    let message = panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "panic without a message".to_owned());
    Error::Internal(message)
}
