//! Writing the three files of a tokenizer, and hashing its contents.

use std::path::Path;

use sha2::{Digest, Sha256};

use super::hugging_face::{self, TOKENIZER_FILE};
use super::token_texts::TokenTexts;
use super::vocab_file::{MERGES_FILE, VOCAB_FILE, merges_text, vocab_json};
use crate::Result;
use crate::staging::{StagedFolder, write_synced};
use crate::tokenizer::parts::{AddedFlags, Parts, Rules};
use crate::tokenizer::pretokenize::Pattern;

/// Writes vocab.json, merges.txt and tokenizer.json to the folder `dir`, which is created if
/// needed. Each file is replaced atomically.
///
/// # Errors
/// Returns `ERR_DISK_FULL`, `ERR_NOT_WRITABLE` or `ERR_IO`.
pub fn save(parts: &Parts, dir: &Path) -> Result<()> {
    let files = contents(parts)?;
    let staged = StagedFolder::new(dir, "tokenizer")?;
    for (name, text) in &files {
        write_synced(&staged.path().join(name), text.as_bytes())?;
    }
    staged.commit_entries(dir, &[VOCAB_FILE, MERGES_FILE, TOKENIZER_FILE])
}

/// Returns whether the folder `dir` holds exactly the files that `save` would write.
pub fn is_saved(parts: &Parts, dir: &Path) -> bool {
    let is_same = |(name, text): &(&str, String)| {
        // The length first: what is not a file, or is larger than any tokenizer, is not read.
        let path = dir.join(name);
        std::fs::metadata(&path)
            .is_ok_and(|status| status.is_file() && status.len() == text.len() as u64)
            && std::fs::read(&path).is_ok_and(|found| found == text.as_bytes())
    };
    dir.is_dir() && contents(parts).is_ok_and(|files| files.iter().all(is_same))
}

/// Returns the name and text of each file.
fn contents(parts: &Parts) -> Result<[(&'static str, String); 3]> {
    let texts = TokenTexts::new(parts);
    Ok([
        (VOCAB_FILE, vocab_json(&texts)),
        (MERGES_FILE, merges_text(&parts.merges, &texts)),
        (TOKENIZER_FILE, hugging_face::to_json(parts, &texts)?),
    ])
}

/// Returns the SHA-256, in hexadecimal, of the vocabulary, the merges, the special tokens, any
/// pattern other than GPT-2's, and any rules that change the ids of a text.
pub fn hash(parts: &Parts) -> String {
    let texts = TokenTexts::new(parts);
    let mut hasher = Sha256::new();
    hasher.update(vocab_json(&texts));
    hasher.update([0]);
    hasher.update(merges_text(&parts.merges, &texts));
    // By id, since a saved tokenizer lists them in that order, whatever order they were given in.
    let mut special: Vec<_> = parts.special.iter().collect();
    special.sort_unstable_by_key(|(_, id)| id);
    for (token, id) in special {
        hasher.update([0]);
        hasher.update(token);
        hasher.update(id.to_le_bytes());
    }
    if parts.pattern != Pattern::Gpt2 {
        hasher.update([1]);
        hasher.update(parts.pattern.source());
    }
    hash_rules(parts, &mut hasher);
    hasher.finalize().iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}

fn hash_rules(parts: &Parts, hasher: &mut Sha256) {
    let Rules { flags, nfc, ignore_merges, template: _ } = &parts.rules;
    let count = |normalized: bool| {
        let is = |id: &u32| parts.rules.flags_of(*id).normalized == normalized;
        parts.special.iter().filter(|(_, id)| is(id)).count()
    };
    // The flag matters only if there are tokens without it as well.
    let normalized_matters = count(true) > 0 && count(false) > 0;
    for (id, flags) in flags {
        let AddedFlags { single_word, lstrip, rstrip, normalized, special: _ } = *flags;
        let changes = [single_word, lstrip, rstrip, normalized && normalized_matters];
        if changes != [false; 4] {
            hasher.update([2]);
            hasher.update(id.to_le_bytes());
            hasher.update(changes.map(u8::from));
        }
    }
    for (tag, is_set) in [(3, *nfc), (4, *ignore_merges)] {
        if is_set {
            hasher.update([tag]);
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::test_support::Folder;
    use crate::tokenizer::Tokenizer;

    #[test]
    fn a_saved_tokenizer_has_the_same_hash_whatever_the_order_of_its_special_tokens() {
        let root = Folder::new();
        let vocab = root.file("vocab.json", r#"{"a":0,"<x>":1,"b":2,"ab":3}"#);
        let merges = root.file("merges.txt", "#version: 0.2\na b\n");
        for special in [["<x>", "<y>"], ["<y>", "<x>"]] {
            let special = special.map(str::to_owned);
            let tokenizer = Tokenizer::from_files(&vocab, &merges, &special).unwrap();
            let folder = root.path().join(&special[0]);
            tokenizer.save(&folder).unwrap();
            assert_eq!(Tokenizer::open(&folder).unwrap().hash(), tokenizer.hash(), "{special:?}");
        }
    }
}
