//! Node-API binding of `kindling-core`. A bound function converts its arguments, calls one core
//! function, and converts the result.
// Node-API passes arguments by value.
#![allow(clippy::needless_pass_by_value)]
// In a test build nothing registers the bound functions, so they look unused.
#![cfg_attr(test, allow(dead_code, unused_imports))]

#[macro_use]
extern crate napi_derive;

mod batch;
mod bench;
mod checkpoint;
mod encode;
mod error;
mod exchange;
mod exclusive;
mod files;
mod generate;
mod memory_plan;
mod model;
mod monitor;
mod ops;
mod optimizer;
mod options;
mod process;
mod store;
mod task;
mod tokenizer;
mod transformer_options;
