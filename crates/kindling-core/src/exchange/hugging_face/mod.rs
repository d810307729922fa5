//! Model folders of Hugging Face's transformers: config.json, safetensors and tokenizer files.
//!
//! | file | holds |
//! |---|---|
//! | `config.rs` | reading a model's configuration from config.json |
//! | `new_config.rs` | writing config.json |

mod config;
mod new_config;

pub use config::config_of;
pub use new_config::config_json;
