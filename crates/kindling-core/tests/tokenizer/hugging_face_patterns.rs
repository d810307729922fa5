//! Tests that a saved tokenizer.json means the same to Hugging Face `tokenizers`, whose regex
//! engine reads some quantifiers differently.

use kindling_core::progress::silent;
use kindling_core::tokenizer::{Kind, Pattern, Tokenizer, TrainOptions};
use serde::Deserialize;
use sha2::{Digest, Sha256};

use crate::{Folder, json, training};

/// Written by `scripts/fixtures/hugging_face_pattern_ids.py`.
#[derive(Deserialize)]
struct Fixture {
    vocab_size: usize,
    special_token: String,
    corpus: String,
    texts: Vec<String>,
    tokenizers: Vec<Trained>,
}

#[derive(Deserialize)]
struct Trained {
    pattern: String,
    /// Hash of the tokenizer.json that `tokenizers` read.
    sha256: String,
    /// Ids that it computed for each text.
    ids: Vec<Vec<u32>>,
}

#[test]
fn hugging_face_computes_the_same_ids_from_the_saved_tokenizer_json() {
    let fixture: Fixture = json("hugging_face_patterns.json");
    let folder = Folder::new();
    let corpus = folder.file("corpus.txt", &fixture.corpus);
    assert_eq!(fixture.tokenizers.len(), 5);
    for trained in fixture.tokenizers {
        let pattern = Pattern::new(&trained.pattern).unwrap();
        let options = TrainOptions {
            pattern: pattern.clone(),
            ..training::options(fixture.vocab_size, &[&fixture.special_token], Kind::Bpe, 1)
        };
        let files = std::slice::from_ref(&corpus);
        let (tokenizer, _) = Tokenizer::train(files, &options, &mut silent).unwrap();
        tokenizer.save(&folder.0).unwrap();
        let saved = std::fs::read(folder.0.join("tokenizer.json")).unwrap();
        let sha256 = format!("{:x}", Sha256::digest(&saved));
        assert_eq!(sha256, trained.sha256, "the file that was read there, {}", trained.pattern);
        let opened = Tokenizer::open(&folder.0).unwrap();
        assert_eq!((opened.pattern(), opened.hash()), (&pattern, tokenizer.hash()));
        for (text, ids) in fixture.texts.iter().zip(&trained.ids) {
            assert_eq!(tokenizer.encode(text).unwrap(), *ids, "{} {text:?}", trained.pattern);
            assert_eq!(opened.encode(text).unwrap(), *ids, "{} {text:?}", trained.pattern);
        }
    }
}
