//! Decoding: drawing tokens that continue prompts.
//!
//! A draw sees the last `max_seq_length` tokens; its logits are those of a whole pass over them.
//! While the tokens fit the window, the model's cache of keys and values yields the same logits for
//! the work of one token.
//!
//! - `generator.rs` continues the rows of a batch until each has ended.
//! - `token_sampler.rs` draws a token from logits.

mod generator;
mod token_sampler;

pub use generator::{Generator, GeneratorOptions};
pub use token_sampler::{SamplingOptions, TokenSampler};
