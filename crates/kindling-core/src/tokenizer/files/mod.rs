//! The files of a tokenizer: vocab.json, merges.txt and tokenizer.json.

pub mod byte_chars;
pub mod hugging_face;
pub mod save;
pub mod vocab_file;
