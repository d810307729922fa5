//! Text to token ids and back: byte-level BPE, or one token per character.
//!
//! ```text
//! text --special.rs--> segments --pretokenize/--> pre-tokens --encode/--> ids --decode.rs--> text
//! ```
//!
//! | place | holds |
//! |---|---|
//! | `normalize.rs` | Unicode's normalization form C |
//! | `parts.rs` | the data that defines a tokenizer |
//! | `pretokenize/` | patterns that split text into pre-tokens |
//! | `encode/` | ids of pre-tokens: merging by rank, and the caches in front of it |
//! | `train/` | counting pre-tokens and learning merges |
//! | `files/` | vocab.json, merges.txt and tokenizer.json |
//! | `special.rs` | special tokens |
//! | `cuts.rs`, `stream.rs` | safe places to cut text; encoding text that arrives in pieces |
//! | `count_tokens.rs` | counting the tokens of files |

mod count_tokens;
mod cuts;
mod decode;
mod encode;
mod files;
mod normalize;
mod parts;
mod pretokenize;
mod special;
mod stream;
mod train;

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use self::cuts::Cuts;
use self::encode::{Encoder, TokenIds};
use self::parts::{Parts, Rules};
use self::special::SpecialTokens;
use crate::Result;
use crate::corpus::{Corpus, ReadSummary, TEXT_FIELD};
use crate::progress::{Progress, SendProgress, silent};

pub use self::files::{GgufVocab, byte_chars};
pub use self::parts::{AddedFlags, Kind, Template};
pub use self::pretokenize::{Pattern, pretokens};
pub use self::stream::StreamEncoder;
pub use self::train::TrainOptions;

/// The special token that ends a document.
pub const END_OF_TEXT: &str = "<|endoftext|>";

/// A tokenizer. It is immutable, and any number of threads can use it at once.
pub struct Tokenizer {
    parts: Arc<Parts>,
    encoder: Encoder,
    ids: Arc<TokenIds>,
    hash: OnceLock<String>,
}

impl std::fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokenizer")
            .field("kind", &self.kind())
            .field("vocab_size", &self.vocab_size())
            .field("num_merges", &self.num_merges())
            .field("special_tokens", &self.special_tokens())
            .finish_non_exhaustive()
    }
}

/// Reading, writing and training.
impl Tokenizer {
    /// Reads GPT-2's vocab.json and merges.txt, whatever their names. Special tokens that the
    /// vocabulary lacks are appended to it.
    ///
    /// # Errors
    /// Returns `ERR_NOT_FOUND`, `ERR_INVALID_TOKENIZER` with the line or entry that is wrong, or
    /// `ERR_INVALID_ARGUMENT` if a special token is empty or repeated.
    pub fn from_files(
        vocab: impl AsRef<Path>,
        merges: impl AsRef<Path>,
        special_tokens: &[String],
    ) -> Result<Self> {
        Self::from_parts(files::read_vocab_and_merges(
            vocab.as_ref(),
            merges.as_ref(),
            special_tokens,
        )?)
    }

    /// Opens Hugging Face's tokenizer.json, a folder with one, or a folder with vocab.json and
    /// merges.txt. In the last case `<|endoftext|>` is a special token if the vocabulary has it.
    ///
    /// # Errors
    /// Returns `ERR_NOT_FOUND` or `ERR_INVALID_TOKENIZER`.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::from_parts(files::open(path.as_ref(), END_OF_TEXT)?)
    }

    /// Builds the tokenizer of a GGUF file.
    ///
    /// # Errors
    /// Returns `ERR_UNSUPPORTED` if Kindling does not know its pre-tokenizer, and
    /// `ERR_INVALID_TOKENIZER` if its values are inconsistent.
    pub fn from_gguf(vocab: &GgufVocab) -> Result<Self> {
        Self::from_parts(files::from_gguf(vocab)?)
    }

    /// Returns the values that make llama.cpp produce the same ids from a GGUF file.
    ///
    /// # Errors
    /// Returns `ERR_UNSUPPORTED` with the part for which llama.cpp has no counterpart.
    pub fn to_gguf(&self) -> Result<GgufVocab> {
        files::to_gguf(&self.parts, &self.encoder)
    }

    /// Writes vocab.json, merges.txt and tokenizer.json to the folder `dir`, which is created if
    /// needed. Each file is replaced atomically.
    ///
    /// # Errors
    /// Returns `ERR_DISK_FULL`, `ERR_NOT_WRITABLE` or `ERR_IO`.
    pub fn save(&self, dir: impl AsRef<Path>) -> Result<()> {
        files::save(&self.parts, dir.as_ref())
    }

    /// Returns whether the folder `dir` holds exactly the files that `save` would write.
    pub(crate) fn is_saved(&self, dir: &Path) -> bool {
        files::is_saved(&self.parts, dir)
    }

    /// Returns the SHA-256, in hexadecimal, of the vocabulary, the merges, the special tokens, any
    /// pattern other than GPT-2's, and any rules that change the ids of a text.
    pub fn hash(&self) -> String {
        self.hash.get_or_init(|| files::hash(&self.parts)).clone()
    }

    /// Trains a tokenizer on text files and JSON Lines files, which are recognized by their names.
    ///
    /// # Errors
    /// As `Corpus::find` and `train_on`.
    pub fn train(
        files: &[PathBuf],
        options: &TrainOptions,
        reading: &mut SendProgress<'_>,
    ) -> Result<(Self, ReadSummary)> {
        Self::train_on(&Corpus::find(files, None, TEXT_FIELD)?, options, reading, &mut silent)
    }

    /// Trains a tokenizer on the text of `corpus`. No pre-token spans two files or two lines of
    /// JSON.
    ///
    /// `reading` is called with the bytes read from the disk so far, then `merging` with the merges
    /// learned.
    ///
    /// # Errors
    /// Returns `ERR_NOT_FOUND`, `ERR_INVALID_CORPUS`, `ERR_EMPTY_CORPUS` if there is no text, I/O
    /// errors, or `ERR_INVALID_ARGUMENT` if `vocab_size` is too small or a special token is empty,
    /// repeated, or equal to the text of a byte in vocab.json. Errors of `reading` and `merging`
    /// are passed on.
    pub fn train_on(
        corpus: &Corpus,
        options: &TrainOptions,
        reading: &mut SendProgress<'_>,
        merging: &mut Progress<'_>,
    ) -> Result<(Self, ReadSummary)> {
        let (parts, summary) = train::train(corpus, options, reading, merging)?;
        Ok((Self::from_parts(parts)?, summary))
    }

    fn from_parts(parts: Parts) -> Result<Self> {
        let special = SpecialTokens::with_rules(parts.special.clone(), &parts.rules)?;
        Ok(Self::with_special(parts, special))
    }

    fn with_special(parts: Parts, special: SpecialTokens) -> Self {
        let parts = Arc::new(parts);
        let is_special: HashSet<u32> = parts.special.iter().map(|&(_, id)| id).collect();
        let is_raw: HashSet<u32> = parts.raw_texts.iter().map(|&(id, _)| id).collect();
        let mut ids = HashMap::with_capacity(parts.tokens.len());
        // Of tokens with equal bytes, one in GPT-2's characters is preferred, then the lowest id.
        for raw in [false, true] {
            for (id, token) in (0..).zip(&parts.tokens) {
                if !is_special.contains(&id) && is_raw.contains(&id) == raw {
                    ids.entry(token.clone()).or_insert(id);
                }
            }
        }
        let ids = Arc::new(ids);
        let encoder = Encoder::new(Arc::clone(&parts), special, Arc::clone(&ids));
        Self { parts, encoder, ids, hash: OnceLock::new() }
    }

    /// Returns the same tokenizer with another pattern.
    #[must_use]
    pub fn with_pattern(self, pattern: Pattern) -> Self {
        let special = self.encoder.special().clone();
        Self::with_special(Parts { pattern, ..Parts::clone(&self.parts) }, special)
    }

    /// Returns the same tokenizer with another template.
    ///
    /// # Errors
    /// Returns `ERR_TOKEN_OUT_OF_RANGE` if an id of the template is not in the vocabulary.
    pub fn with_template(self, template: Template) -> Result<Self> {
        for &id in template.before.iter().chain(&template.after) {
            self.token_bytes(id)?;
        }
        let special = self.encoder.special().clone();
        let rules = Rules { template, ..self.parts.rules.clone() };
        Ok(Self::with_special(Parts { rules, ..Parts::clone(&self.parts) }, special))
    }
}

/// Encoding. See also `stream.rs`, `count_tokens.rs` and `decode.rs`.
impl Tokenizer {
    /// Returns the ids of `text`.
    ///
    /// # Errors
    /// Returns `ERR_UNKNOWN_CHARACTER` if the vocabulary has no token for a character
    /// (`Kind::Chars`, or a vocabulary that lacks some of the 256 bytes).
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        let mut ids = Vec::with_capacity(text.len() / 4 + 1);
        self.encode_into(text, &mut ids)?;
        Ok(ids)
    }

    /// Returns the ids of `text` between those of the template, like Hugging Face's
    /// `add_special_tokens`.
    ///
    /// # Errors
    /// As `encode`.
    pub fn encode_with_template(&self, text: &str) -> Result<Vec<u32>> {
        let Template { before, after } = self.template();
        let mut ids = before.clone();
        self.encode_into(text, &mut ids)?;
        ids.extend(after);
        Ok(ids)
    }

    /// Returns the ids of bytes. Invalid UTF-8 is read as U+FFFD.
    ///
    /// # Errors
    /// As `encode`.
    pub fn encode_bytes(&self, bytes: &[u8]) -> Result<Vec<u32>> {
        self.encode(&String::from_utf8_lossy(bytes))
    }

    /// Appends the ids of `text` to `ids`.
    ///
    /// # Errors
    /// As `encode`; `ids` then holds the ids up to the segment with the unknown character.
    pub fn encode_into(&self, text: &str, ids: &mut Vec<u32>) -> Result<()> {
        self.encode_in_pieces(text, ids, &mut |_, _| Ok(()))
    }

    /// Like `encode_into`, but calls `flush` now and then with `ids` and the number of bytes of
    /// `text` encoded so far. `flush` may take the ids out.
    pub(crate) fn encode_in_pieces(
        &self,
        text: &str,
        ids: &mut Vec<u32>,
        flush: &mut impl FnMut(&mut Vec<u32>, usize) -> Result<()>,
    ) -> Result<()> {
        self.encoder.encode(text, ids, flush)
    }

    fn cuts(&self) -> Cuts<'_> {
        let (kind, pattern) = (self.parts.kind, &self.parts.pattern);
        Cuts { kind, pattern, special: self.encoder.special(), nfc: self.parts.rules.nfc }
    }

    /// Returns the last position at which `bytes` may be cut: both sides encode as the whole does,
    /// whatever text precedes and follows it.
    pub(crate) fn last_cut(&self, bytes: &[u8]) -> Option<usize> {
        self.cuts().last_in_bytes(bytes, false)
    }

    /// Prepares for encoding much text, perhaps on several threads, by allocating 76 MiB of caches
    /// that all threads share from now on.
    pub fn expect_much_text(&self) {
        self.encoder.share_caches();
    }
}

/// Properties.
impl Tokenizer {
    pub fn kind(&self) -> Kind {
        self.parts.kind
    }

    /// Returns the pattern that splits text into pre-tokens.
    pub fn pattern(&self) -> &Pattern {
        &self.parts.pattern
    }

    /// Returns the number of tokens, special ones included.
    pub fn vocab_size(&self) -> usize {
        self.parts.tokens.len()
    }

    pub fn num_merges(&self) -> usize {
        self.parts.merges.len()
    }

    /// Returns the special tokens in the order given, with their ids.
    pub fn special_tokens(&self) -> &[(String, u32)] {
        &self.parts.special
    }

    /// Returns the ids that `encode_with_template` puts around a text.
    pub fn template(&self) -> &Template {
        &self.parts.rules.template
    }

    /// Returns the token that the template begins with, if any.
    pub fn bos_of_template(&self) -> Option<u32> {
        self.template().before.first().copied()
    }

    /// Returns the id of the special token `token`, or of the ordinary token with these bytes.
    pub fn token_id(&self, token: &str) -> Option<u32> {
        let special = self.encoder.special();
        special.id(token).or_else(|| self.ids.get(token.as_bytes()).copied())
    }
}
