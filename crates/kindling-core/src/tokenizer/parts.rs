//! The data that defines a tokenizer, whether it was read from files or trained.

use super::pretokenize::Pattern;

/// Kind of tokenizer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Byte-level BPE.
    Bpe,
    /// One token per character (code point).
    Chars,
}

/// A merge: the ids of the left token, the right token and the token they become.
pub type Merge = (u32, u32, u32);

/// Vocabulary, merges and special tokens of a tokenizer.
#[derive(Debug, Clone)]
pub struct Parts {
    pub kind: Kind,
    /// Splits text into pre-tokens; unused by `Kind::Chars`.
    pub pattern: Pattern,
    /// Bytes of each token, by id.
    pub tokens: Vec<Box<[u8]>>,
    /// Merges by rank.
    pub merges: Vec<Merge>,
    /// Special tokens in the order given, with their ids.
    pub special: Vec<(String, u32)>,
    /// Ids and texts of the vocabulary's entries that are neither special tokens nor bytes in
    /// GPT-2's characters. Saved as they were read.
    pub raw_texts: Vec<(u32, String)>,
}
