//! Decoding: drawing tokens after prompts.
//!
//! The context of a draw is the last `max_seq_length` tokens, and the scores are those of a fresh pass over them. While they
//! fit, a cache of keys and values gives the same scores for the work of one token (`kv_cache.rs`); `sampler.rs` is how a
//! token is drawn from scores; `generator.rs` keeps the rows of a batch going until each has ended.

mod generator;
mod kv_cache;
mod sampler;

pub use generator::{Generator, GeneratorOptions};
pub(crate) use kv_cache::CacheStep;
pub use kv_cache::KvCache;
pub use sampler::{Sampler, Sampling, sample};
