//! Input: a byte, then a text file, or JSON Lines if the byte is odd, plain or compressed. It is
//! sampled, its tokens are counted, and a tokenizer is trained on it.
#![no_main]

use std::sync::OnceLock;

use kindling_core::corpus::{Corpus, TEXT_FIELD, sample_documents};
use kindling_core::progress::silent;
use kindling_core::tokenizer::{END_OF_TEXT, Kind, Pattern, Tokenizer, TrainOptions};
use kindling_fuzz::{empty_folder, file, sound};

fn options(kind: Kind) -> TrainOptions {
    TrainOptions {
        vocab_size: 262,
        special_tokens: vec![END_OF_TEXT.to_owned()],
        kind,
        pattern: Pattern::Gpt2,
        threads: 1,
        min_frequency: 1,
        max_bytes: Some(1 << 20),
    }
}

/// A tokenizer with a few merges, whose caches are allocated once.
fn tokenizer() -> &'static Tokenizer {
    static TOKENIZER: OnceLock<Tokenizer> = OnceLock::new();
    TOKENIZER.get_or_init(|| {
        let path = file(&empty_folder("first"), "a.txt", b"the sea, the other seas");
        let corpus = Corpus::find(&[path], None, TEXT_FIELD).expect("a corpus");
        let trained = Tokenizer::train_on(&corpus, &options(Kind::Bpe), &mut silent, &mut silent);
        trained.expect("a tokenizer").0
    })
}

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Some((kind, bytes)) = data.split_first() else { return };
    let tokenizer = tokenizer();
    let name = if kind & 1 == 0 { "text.txt" } else { "lines.jsonl" };
    let path = file(&empty_folder("corpus"), name, bytes);
    let corpus = Corpus::find(&[path.clone()], None, TEXT_FIELD).expect("the file exists");
    if let Some(documents) = sound(sample_documents(&corpus, END_OF_TEXT, 3, 1, &mut silent)) {
        assert!(!documents.is_empty() && documents.len() <= 3);
    }
    sound(tokenizer.count_tokens(&[path], 1, &mut silent));
    let kind = if kind & 2 == 0 { Kind::Bpe } else { Kind::Chars };
    sound(Tokenizer::train_on(&corpus, &options(kind), &mut silent, &mut silent));
});
