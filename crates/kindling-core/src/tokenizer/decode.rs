//! Ids to bytes and text.

use super::Tokenizer;
use crate::{Error, Result};

impl Tokenizer {
    /// Text of `ids`; bytes that are not UTF-8 become U+FFFD as Python's `errors='replace'` does.
    ///
    /// # Errors
    /// `ERR_TOKEN_OUT_OF_RANGE` for an unknown id.
    pub fn decode(&self, ids: &[u32]) -> Result<String> {
        let bytes = self.decode_bytes(ids)?;
        Ok(String::from_utf8(bytes)
            .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned()))
    }

    /// Bytes of `ids`.
    ///
    /// # Errors
    /// `ERR_TOKEN_OUT_OF_RANGE` for an unknown id.
    pub fn decode_bytes(&self, ids: &[u32]) -> Result<Vec<u8>> {
        let mut bytes = Vec::with_capacity(ids.len() * 4);
        for (position, &id) in (0..).zip(ids) {
            let token =
                self.tokens.get(id as usize).ok_or_else(|| self.unknown_id(id, position))?;
            bytes.extend_from_slice(token);
        }
        Ok(bytes)
    }

    /// Bytes of one token.
    ///
    /// # Errors
    /// `ERR_TOKEN_OUT_OF_RANGE` for an unknown id.
    pub fn token_bytes(&self, id: u32) -> Result<&[u8]> {
        self.tokens.get(id as usize).map(AsRef::as_ref).ok_or_else(|| self.unknown_id(id, 0))
    }

    fn unknown_id(&self, id: u32, position: u64) -> Error {
        Error::TokenOutOfRange { id: i64::from(id), position, vocab_size: self.vocab_size() }
    }
}
