//! Token data: encoding text to stores of token ids on disk, and reading batches from them.
//!
//! A store has the course's format, raw int32 chunks as numpy.memmap writes them, plus
//! `store.json`. Chunks of uint16 are supported too.
//!
//! | file | what |
//! |---|---|
//! | `token_store.rs` | an open store: ranges, batches, checks |
//! | `files.rs`, `npy.rs`, `metadata.rs` | the files of a store; the header of .npy; `store.json` |
//! | `chunk_reader.rs`, `element.rs` | reading chunk files; the integer types of ids |
//! | `store_writer.rs` | writes a store |
//! | `encode/` | encodes text files to stores |
//! | `reshape.rs` | merges and splits stores |
//! | `destination.rs` | where new stores go, and how they replace old ones |
//! | `batch.rs`, `window_order.rs` | batches, and the starts of their windows |
//! | `mixture.rs`, `loader.rs` | the batches of a run, from one or several stores; prefetching |
//! | `entropy.rs` | the entropy of token counts |

pub mod batch;
pub mod chunk_reader;
#[cfg(test)]
mod damage_tests;
mod destination;
mod element;
pub mod encode;
mod entropy;
pub mod files;
mod identity;
pub mod loader;
pub mod metadata;
mod mixture;
pub mod npy;
pub mod reshape;
pub mod store_writer;
#[cfg(test)]
mod tests;
pub mod token_store;
pub mod window_order;

pub use self::batch::Batch;
pub use self::element::Element;
pub use self::encode::{EncodeOptions, EncodeSummary, encode_files};
pub use self::entropy::token_entropy;
pub use self::loader::BatchLoader;
pub use self::metadata::Metadata;
pub use self::mixture::LoaderOptions;
pub use self::store_writer::StoreWriter;
pub use self::token_store::TokenStore;
pub use self::window_order::{BatchSpec, WindowOrder};
pub use crate::corpus::{Document, Format};
