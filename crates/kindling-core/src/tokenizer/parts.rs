//! The data that defines a tokenizer, whether it was read from files or trained.

use std::collections::BTreeMap;

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
    /// Special tokens with their ids, in the order given.
    pub special: Vec<(String, u32)>,
    /// Ids and texts of the vocabulary's entries that are neither special tokens nor bytes in
    /// GPT-2's characters, by ascending id. They are saved as they were read.
    pub raw_texts: Vec<(u32, String)>,
    pub rules: Rules,
}

/// Rules that tokenizers made elsewhere may have. The default, which tokenizers trained here have,
/// is none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rules {
    /// Flags of special tokens that differ from the default, by id.
    pub flags: BTreeMap<u32, AddedFlags>,
    /// Whether text is brought to Unicode's normalization form C before it is split.
    pub nfc: bool,
    /// Whether a pre-token that is a token becomes that token, whatever merging would result in.
    pub ignore_merges: bool,
    pub template: Template,
}

impl Rules {
    /// Returns the flags of a special token.
    pub fn flags_of(&self, id: u32) -> AddedFlags {
        self.flags.get(&id).copied().unwrap_or_default()
    }
}

/// Ids around a text: what Hugging Face's `add_special_tokens` adds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Template {
    pub before: Vec<u32>,
    pub after: Vec<u32>,
}

/// Flags for finding a special token in text, as in the `added_tokens` of a tokenizer.json.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "the format's five independent flags")]
pub struct AddedFlags {
    /// Not found next to a letter, digit, mark or underscore.
    pub single_word: bool,
    /// Includes the white space before it.
    pub lstrip: bool,
    /// Includes the white space after it.
    pub rstrip: bool,
    /// Found after normalization, in the text that the other tokens leave.
    pub normalized: bool,
    /// Left out by Hugging Face's decoding; has no effect here.
    pub special: bool,
}

impl Default for AddedFlags {
    fn default() -> Self {
        Self { single_word: false, lstrip: false, rstrip: false, normalized: false, special: true }
    }
}
