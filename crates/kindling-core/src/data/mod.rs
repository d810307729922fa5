//! Token data: text to a store of token ids on disk, and batches out of it.
//!
//! The store's form is the course's (raw int32 chunks as numpy.memmap writes them) plus `store.json`.

pub mod batch;
mod checksum;
mod destination;
pub mod element;
pub mod encode;
mod entropy;
pub mod files;
pub mod loader;
pub mod metadata;
pub mod npy;
pub mod reshape;
pub mod store_writer;
#[cfg(test)]
mod tests;
pub mod token_store;
pub mod window_order;

pub use batch::Batch;
pub use element::Element;
pub use encode::{Document, EncodeOptions, EncodeSummary, Format, encode_files};
pub use entropy::token_entropy;
pub use loader::{BatchLoader, LoaderOptions};
pub use metadata::Metadata;
pub use store_writer::StoreWriter;
pub use token_store::TokenStore;
pub use window_order::{BatchSpec, Sampling};
