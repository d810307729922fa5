//! Binding of `kindling-core` to Node: convert, call one core function, convert.
// Node-API hands its values over; what a function only reads comes by value all the same.
#![allow(clippy::needless_pass_by_value)]
// Without Node to call them, the bound functions of a test build have no callers.
#![cfg_attr(test, allow(dead_code, unused_imports))]

#[macro_use]
extern crate napi_derive;

mod batch;
mod bench;
mod checkpoint;
mod encode;
mod error;
mod exclusive;
mod generate;
mod model;
mod monitor;
mod ops;
mod optimizer;
mod options;
mod store;
mod task;
mod tokenizer;
