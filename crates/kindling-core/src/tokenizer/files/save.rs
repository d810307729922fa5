//! Writing a tokenizer's three files, each whole or not at all, and the hash of its contents.

use std::path::Path;

use sha2::{Digest, Sha256};

use super::hugging_face;
use super::vocab_file::{TokenTexts, merges_text, vocab_json};
use crate::Result;
use crate::staging::{StagedFolder, write_synced};
use crate::tokenizer::parts::PartsRef;
use crate::tokenizer::{Pattern, Tokenizer};

/// Name of the vocabulary in a tokenizer's folder.
pub const VOCAB_FILE: &str = "vocab.json";
/// Name of the merges.
pub const MERGES_FILE: &str = "merges.txt";
/// Name of Hugging Face's file.
pub const TOKENIZER_FILE: &str = "tokenizer.json";

impl Tokenizer {
    /// Writes vocab.json, merges.txt and tokenizer.json to the folder `dir`, made if needed. Each file appears whole.
    ///
    /// # Errors
    /// The system's errors: `ERR_DISK_FULL`, `ERR_NOT_WRITABLE`, `ERR_IO`.
    pub fn save(&self, dir: impl AsRef<Path>) -> Result<()> {
        let dir = dir.as_ref();
        let files = self.files()?;
        let staged = StagedFolder::new(dir, "tokenizer")?;
        for (name, text) in &files {
            write_synced(&staged.path().join(name), text.as_bytes())?;
        }
        staged.commit_entries(dir, &[VOCAB_FILE, MERGES_FILE, TOKENIZER_FILE])
    }

    /// Whether the folder `dir` holds what `save` would write there.
    pub(crate) fn is_saved(&self, dir: &Path) -> bool {
        let is_same = |(name, text): &(&str, String)| {
            std::fs::read(dir.join(name)).is_ok_and(|found| found == text.as_bytes())
        };
        dir.is_dir() && self.files().is_ok_and(|files| files.iter().all(is_same))
    }

    /// The files of a saved tokenizer: name and text.
    fn files(&self) -> Result<[(&'static str, String); 3]> {
        let parts = self.parts();
        let texts = TokenTexts::new(parts);
        Ok([
            (VOCAB_FILE, vocab_json(&texts)),
            (MERGES_FILE, merges_text(parts.merges, &texts)),
            (TOKENIZER_FILE, hugging_face::text(parts, &texts)?),
        ])
    }

    /// SHA-256 of the vocabulary, the merges, the special tokens and any pattern but GPT-2's, in hexadecimal.
    pub fn hash(&self) -> String {
        self.hash.get_or_init(|| self.hash_contents()).clone()
    }

    fn hash_contents(&self) -> String {
        let parts = self.parts();
        let texts = TokenTexts::new(parts);
        let mut hasher = Sha256::new();
        hasher.update(vocab_json(&texts));
        hasher.update([0]);
        hasher.update(merges_text(parts.merges, &texts));
        for (token, id) in parts.special {
            hasher.update([0]);
            hasher.update(token);
            hasher.update(id.to_le_bytes());
        }
        if *parts.pattern != Pattern::Gpt2 {
            hasher.update([1]);
            hasher.update(parts.pattern.source());
        }
        hasher.finalize().iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
    }

    fn parts(&self) -> PartsRef<'_> {
        PartsRef {
            kind: self.kind,
            pattern: &self.pattern,
            tokens: &self.tokens,
            merges: &self.merges,
            special: self.special.tokens(),
            odd_texts: &self.odd_texts,
        }
    }
}
