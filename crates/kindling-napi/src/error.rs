//! Converts the engine's errors for JavaScript, where `src/errors.ts` turns them into
//! `KindlingError`.

use kindling_core::Error;

/// Returns the error as Node-API carries it: one message, `ERR_CODE: text`.
pub fn to_napi(error: Error) -> napi::Error {
    napi::Error::from_reason(format!("{}: {error}", error.code()))
}

/// Returns the error for a caught panic: `ERR_OUT_OF_MEMORY` if an op could not allocate its
/// scratch memory, else an internal error with the panic's message.
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
