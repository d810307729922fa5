//! Binding of `kindling-core` to Node: convert, call one core function, convert.
#[macro_use]
extern crate napi_derive;

/// Version of the native engine.
#[napi]
pub fn engine_version() -> &'static str {
    env!("CARGO_PKG_VERSION")
}
