//! Binding of `kindling-core` to Node: convert, call one core function, convert.
#[macro_use]
extern crate napi_derive;

#[allow(dead_code)] // used as the classes land
mod error;
#[allow(dead_code)]
mod slot;
#[allow(dead_code)]
mod task;

/// Version of the native engine.
#[napi]
pub fn engine_version() -> &'static str {
    env!("CARGO_PKG_VERSION")
}
