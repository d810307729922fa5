//! Text to token ids and back: byte-level BPE with GPT-2's pre-tokenization, or one token a character.
//!
//! | room | holds |
//! |---|---|
//! | `pretokenize/` | patterns that split text into pre-tokens, the bitmask scanner, Unicode classes |
//! | `encode/` | pre-token to ids: merging by rank, and `cache/` in front of it |
//! | `train/` | counting pre-tokens and learning merges |
//! | `files/` | vocab.json, merges.txt, tokenizer.json |
//! | `special.rs`, `cuts.rs`, `decode.rs`, `stream.rs` | special tokens; cuts in text; ids to text; encoding text that arrives in pieces |

mod cuts;
mod decode;
mod encode;
mod files;
mod parts;
pub mod pretokenize;
mod special;
mod stream;
mod train;

use std::collections::HashMap;
use std::path::Path;
use std::sync::OnceLock;

use self::encode::merge::MergeTable;
use self::encode::scratch::{Scratches, SharedCaches};
use self::files::{hugging_face, save, vocab_file};
use self::parts::Parts;
use self::special::SpecialTokens;
use crate::simd::Isa;
use crate::{Error, Result};

pub use self::files::byte_chars;
pub use self::pretokenize::Pattern;
pub use self::stream::{StreamDecoder, StreamEncoder};
pub use self::train::TrainOptions;

/// How text becomes tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Byte-level BPE.
    Bpe,
    /// One token a character, by code point.
    Chars,
}

/// A tokenizer; immutable, used by any number of threads at once.
pub struct Tokenizer {
    kind: Kind,
    pattern: Pattern,
    /// Bytes of each token, by id.
    tokens: Vec<Box<[u8]>>,
    /// As vocab.json writes them; only those that cannot be told from the bytes.
    odd_texts: Vec<(u32, String)>,
    merges: Vec<(u32, u32, u32)>,
    special: SpecialTokens,
    merge_table: MergeTable,
    /// Id of each single byte, `u32::MAX` where the vocabulary has none.
    byte_ids: [u32; 256],
    lacks_bytes: bool,
    char_ids: HashMap<char, u32>,
    ids: HashMap<Box<[u8]>, u32>,
    scratches: Scratches,
    shared_caches: OnceLock<Option<SharedCaches>>,
    hash: OnceLock<String>,
    isa: Isa,
}

impl std::fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokenizer")
            .field("kind", &self.kind)
            .field("vocab_size", &self.vocab_size())
            .field("num_merges", &self.num_merges())
            .field("special_tokens", &self.special_tokens())
            .finish_non_exhaustive()
    }
}

impl Tokenizer {
    /// Reads GPT-2's two files, whatever their names. A special token that is not in the vocabulary is appended to it.
    ///
    /// # Errors
    /// `ERR_NOT_FOUND`, `ERR_INVALID_TOKENIZER` naming the line or entry that does not fit, `ERR_INVALID_ARGUMENT` for an
    /// empty or repeated special token.
    pub fn from_files(
        vocab: impl AsRef<Path>,
        merges: impl AsRef<Path>,
        special_tokens: &[String],
    ) -> Result<Self> {
        Self::from_parts(vocab_file::read(vocab.as_ref(), merges.as_ref(), special_tokens)?)
    }

    /// Opens a folder that `save` wrote (or one with a tokenizer.json, or with vocab.json and merges.txt, whose special
    /// token <|endoftext|> is known), or a tokenizer.json of Hugging Face.
    ///
    /// # Errors
    /// `ERR_NOT_FOUND`, `ERR_INVALID_TOKENIZER`.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        if !path.exists() {
            return Err(Error::NotFound { what: "tokenizer", path: path.to_path_buf() });
        }
        if !path.is_dir() {
            return Self::from_parts(hugging_face::read(path)?);
        }
        let whole = path.join(save::TOKENIZER_FILE);
        if whole.exists() {
            return Self::from_parts(hugging_face::read(&whole)?);
        }
        let (vocab, merges) = (path.join(save::VOCAB_FILE), path.join(save::MERGES_FILE));
        let plain = Self::from_files(&vocab, &merges, &[])?;
        match plain.token_id(END_OF_TEXT) {
            Some(_) => Self::from_files(&vocab, &merges, &[END_OF_TEXT.to_owned()]),
            None => Ok(plain),
        }
    }

    pub(crate) fn from_parts(parts: Parts) -> Result<Self> {
        let Parts { kind, pattern, tokens, merges, special, odd_texts } = parts;
        let is_special: std::collections::HashSet<u32> =
            special.iter().map(|&(_, id)| id).collect();
        let mut ids = HashMap::with_capacity(tokens.len());
        let mut byte_ids = [u32::MAX; 256];
        let mut char_ids = HashMap::new();
        for (id, token) in (0..).zip(&tokens).filter(|(id, _)| !is_special.contains(id)) {
            ids.entry(token.clone()).or_insert(id);
            if let ([byte], Kind::Bpe) = (&token[..], kind) {
                byte_ids[usize::from(*byte)] = id;
            }
            if kind == Kind::Chars {
                char_ids.extend(
                    std::str::from_utf8(token)
                        .ok()
                        .and_then(|text| text.chars().next())
                        .map(|c| (c, id)),
                );
            }
        }
        let special = SpecialTokens::new(special)?;
        let merge_table = MergeTable::new(&merges, &byte_ids);
        let lacks_bytes = byte_ids.contains(&u32::MAX);
        let scratches = Scratches::default();
        Ok(Self {
            kind,
            pattern,
            tokens,
            odd_texts,
            merges,
            special,
            merge_table,
            byte_ids,
            lacks_bytes,
            char_ids,
            ids,
            scratches,
            shared_caches: OnceLock::new(),
            hash: OnceLock::new(),
            isa: Isa::detect(),
        })
    }

    /// How text becomes tokens.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The same tokenizer with another pattern.
    #[must_use]
    pub fn with_pattern(mut self, pattern: Pattern) -> Self {
        self.pattern = pattern;
        self.scratches = Scratches::default();
        self.shared_caches = OnceLock::new();
        self.hash = OnceLock::new();
        self
    }

    /// How text is cut into pre-tokens.
    pub fn pattern(&self) -> &Pattern {
        &self.pattern
    }

    /// Tokens in the vocabulary, the special ones among them; ids are below it.
    pub fn vocab_size(&self) -> usize {
        self.tokens.len()
    }

    /// Merges.
    pub fn num_merges(&self) -> usize {
        self.merges.len()
    }

    /// Special tokens in the order given, with their ids.
    pub fn special_tokens(&self) -> &[(String, u32)] {
        self.special.tokens()
    }

    /// Id of the token whose text is `token`: a special one, or one of the vocabulary with these bytes.
    pub fn token_id(&self, token: &str) -> Option<u32> {
        self.special.id(token).or_else(|| self.ids.get(token.as_bytes()).copied())
    }
}

/// The special token that ends a document.
pub const END_OF_TEXT: &str = "<|endoftext|>";
