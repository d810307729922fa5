//! The engine of Kindling: tokenizer, token store, ops, model, optimizers, checkpoints, decoding.
//!
//! It does not depend on Node. `ARCHITECTURE.md` at the root of the repository is the map.

mod available_memory;
pub mod bench;
pub mod buffer;
pub mod checkpoint;
pub(crate) mod checksum;
pub mod config;
pub mod corpus;
pub mod cpu;
pub mod cuda;
pub mod data;
pub mod decode;
pub mod device;
pub mod dtype;
pub mod error;
pub mod exchange;
mod host_memory;
pub mod model;
pub mod ops;
pub mod optim;
mod pattern;
pub mod pool;
pub mod process;
pub mod profile;
pub mod progress;
pub mod random;
pub mod simd;
pub mod staging;
mod sync;
#[cfg(test)]
pub(crate) mod test_support;
pub mod tokenizer;
pub(crate) mod whole_file;

pub use error::{Error, Result};
pub(crate) use simd::dispatch;
