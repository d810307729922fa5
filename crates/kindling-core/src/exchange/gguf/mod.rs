//! GGUF, the model files of llama.cpp.
//!
//! | file | holds |
//! |---|---|
//! | `read.rs` | the header of a file, and its tensors |
//! | `write.rs` | writing a file |
//! | `config.rs` | a model's configuration from the metadata, and back |
//! | `value.rs` | values of the metadata |

mod config;
mod read;
mod value;
mod write;

pub use config::{ModelMetadata, ROPE_FACTORS, config_of, metadata_of, rope_factors};
pub use read::GgufFile;
pub use value::Value;
pub use write::write;
