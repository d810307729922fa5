//! Imports and exports models in the file formats of other programs.
//!
//! ```text
//! Hugging Face | GGUF | PyTorch --source.rs--> Transformer --export.rs--> Hugging Face | GGUF
//! ```
//!
//! | place | holds |
//! |---|---|
//! | `source.rs` | opening a model: its configuration, its tensors, its tokenizer |
//! | `export.rs` | writing a model |
//! | `names.rs`, `rotation.rs` | names of the parameters in other formats, and the order of rows |
//! | `hugging_face/`, `gguf/`, `torch/`, `safetensors.rs`, `course.rs` | one format each |
//! | `companions.rs` | `tokenizer_config.json` with the chat template, `generation_config.json` |
//! | `tensor_files.rs`, `tensor_writer.rs` | tensors in files, read and written one at a time |
//! | `tensor_type.rs`, `blocks.rs` | element types, including GGUF's quantized ones |
//! | `architecture.rs` | the architecture under which other programs compute the same model |
//!
//! Files are not trusted: sizes and counts are checked against the file before memory is allocated,
//! and a damaged file is `ERR_INVALID_MODEL`.

mod architecture;
mod blocks;
mod companions;
mod course;
mod export;
pub mod gguf;
mod hugging_face;
mod names;
mod rotation;
mod safetensors;
mod source;
mod tensor_files;
mod tensor_type;
mod tensor_writer;
mod torch;

pub use companions::{Companions, SpecialIds};
pub use course::CourseSizes;
pub use export::{Export, ExportFormat};
pub use source::{Format, ModelSource};
pub use tensor_files::{TensorEntry, TensorFiles};
pub use tensor_type::TensorType;
pub use tensor_writer::{NewTensor, ReadTensor};
