//! Converts the engine's errors for JavaScript, where `src/errors.ts` turns them into
//! `KindlingError`.

use kindling_core::Error;

/// Returns the error as Node-API carries it, with the text `ERR_CODE: message`.
pub fn to_napi(error: Error) -> napi::Error {
    napi::Error::from_reason(format!("{}: {error}", error.code()))
}

/// Returns the error of a caught panic: `ERR_OUT_OF_MEMORY` of an op that found no scratch memory,
/// else an internal error with its message.
pub fn from_panic(panic: &(dyn std::any::Any + Send)) -> Error {
    if let Some(Error::OutOfMemory { bytes }) = panic.downcast_ref::<Error>() {
        return Error::OutOfMemory { bytes: *bytes };
    }
    let message = panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "panic without a message".to_owned());
    Error::Internal(message)
}
