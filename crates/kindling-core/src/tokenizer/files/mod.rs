//! The files of a tokenizer: GPT-2's vocab.json and merges.txt, Hugging Face's tokenizer.json, and
//! the tokenizer within a GGUF file.
//!
//! | file | holds |
//! |---|---|
//! | `byte_chars.rs` | the characters that stand for bytes in all three files |
//! | `token_texts.rs` | from tokens to the texts of a vocabulary, and back |
//! | `vocab_file.rs` | vocab.json and merges.txt |
//! | `hugging_face/` | tokenizer.json |
//! | `gguf.rs` | the tokenizer of a GGUF file, to and from plain values |
//! | `save.rs` | writing the files, and hashing their contents |

pub mod byte_chars;
mod gguf;
mod hugging_face;
mod save;
mod token_texts;
mod vocab_file;

use std::path::Path;

use self::hugging_face::TOKENIZER_FILE;
use self::vocab_file::{MERGES_FILE, VOCAB_FILE};
use super::parts::Parts;
use crate::{Error, Result};

pub use self::gguf::{GgufVocab, from_gguf, to_gguf};
pub use self::save::{hash, is_saved, save};
pub use self::vocab_file::read_vocab_and_merges;

/// Reads a tokenizer.json, or a folder with one, or a folder with vocab.json and merges.txt.
///
/// vocab.json does not say which tokens are special. `default_special` is, if the vocabulary has
/// it.
///
/// # Errors
/// Returns `ERR_NOT_FOUND` or `ERR_INVALID_TOKENIZER`.
pub fn open(path: &Path, default_special: &str) -> Result<Parts> {
    if !path.exists() {
        return Err(Error::NotFound { what: "tokenizer", path: path.to_path_buf() });
    }
    if !path.is_dir() {
        return hugging_face::read(path);
    }
    let tokenizer = path.join(TOKENIZER_FILE);
    if tokenizer.exists() {
        return hugging_face::read(&tokenizer);
    }
    let (vocab, merges) = (path.join(VOCAB_FILE), path.join(MERGES_FILE));
    let plain = read_vocab_and_merges(&vocab, &merges, &[])?;
    if plain.tokens.iter().any(|token| **token == *default_special.as_bytes()) {
        return read_vocab_and_merges(&vocab, &merges, &[default_special.to_owned()]);
    }
    Ok(plain)
}
