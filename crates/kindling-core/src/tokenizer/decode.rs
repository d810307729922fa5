//! Decoding: ids to bytes and text.

use super::Tokenizer;
use crate::{Error, Result};

impl Tokenizer {
    /// Returns the text of `ids`. Invalid UTF-8 becomes U+FFFD, as with Python's
    /// `errors='replace'`.
    ///
    /// # Errors
    /// Returns `ERR_TOKEN_OUT_OF_RANGE` if an id is not in the vocabulary.
    pub fn decode(&self, ids: &[u32]) -> Result<String> {
        let bytes = self.decode_bytes(ids)?;
        Ok(String::from_utf8(bytes)
            .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned()))
    }

    /// Returns the bytes of `ids`.
    ///
    /// # Errors
    /// Returns `ERR_TOKEN_OUT_OF_RANGE` if an id is not in the vocabulary.
    pub fn decode_bytes(&self, ids: &[u32]) -> Result<Vec<u8>> {
        let mut bytes = Vec::with_capacity(ids.len() * 4);
        for (position, &id) in (0..).zip(ids) {
            bytes.extend_from_slice(self.bytes_of(id, position)?);
        }
        Ok(bytes)
    }

    /// Returns the bytes of one token.
    ///
    /// # Errors
    /// Returns `ERR_TOKEN_OUT_OF_RANGE` if the id is not in the vocabulary.
    pub fn token_bytes(&self, id: u32) -> Result<&[u8]> {
        self.bytes_of(id, 0)
    }

    fn bytes_of(&self, id: u32, position: u64) -> Result<&[u8]> {
        self.parts.tokens.get(id as usize).map(AsRef::as_ref).ok_or_else(|| {
            Error::TokenOutOfRange { id: i64::from(id), position, vocab_size: self.vocab_size() }
        })
    }
}
