//! Input: a byte that chooses the pattern, a byte that sets the size of pieces, then a text of any
//! bytes. It is encoded as a whole and in pieces, and decoded.
#![no_main]

use std::sync::{Arc, OnceLock};

use kindling_core::corpus::{Corpus, TEXT_FIELD};
use kindling_core::progress::silent;
use kindling_core::tokenizer::{
    END_OF_TEXT, Kind, Pattern, StreamEncoder, Tokenizer, TrainOptions,
};
use kindling_fuzz::{empty_folder, file};

const PATTERNS: [&str; 4] = ["gpt2", "cl100k", "llama3", r"\w+|\W"];
const LEARNED: &str =
    "the sea's 12 345 seas, they'll sea <|endoftext|>\n\n  'THEY'LL' éé 日日 xxxx";

/// Trains a tokenizer for each pattern.
fn tokenizers() -> &'static [Arc<Tokenizer>] {
    static ALL: OnceLock<Vec<Arc<Tokenizer>>> = OnceLock::new();
    ALL.get_or_init(|| {
        let path = file(&empty_folder("learned"), "a.txt", LEARNED.repeat(3).as_bytes());
        let corpus = Corpus::find(&[path], None, TEXT_FIELD).expect("a corpus");
        let train = |pattern: &&str| {
            let options = TrainOptions {
                vocab_size: 300,
                special_tokens: vec![END_OF_TEXT.to_owned(), "<|end".to_owned()],
                kind: Kind::Bpe,
                pattern: Pattern::new(pattern).expect("a pattern"),
                threads: 1,
                min_frequency: 1,
                max_bytes: None,
            };
            let trained = Tokenizer::train_on(&corpus, &options, &mut silent, &mut silent);
            Arc::new(trained.expect("a tokenizer").0)
        };
        PATTERNS.iter().map(train).collect()
    })
}

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let [pattern, size, bytes @ ..] = data else { return };
    let tokenizer = &tokenizers()[usize::from(*pattern) % PATTERNS.len()];
    let text = String::from_utf8_lossy(bytes);
    let whole = tokenizer.encode(&text).expect("every byte has a token");
    assert!(tokenizer.decode(&whole).expect("ids of the vocabulary") == text);
    let size = usize::from(*size) + 1;
    let mut stream = StreamEncoder::with_block(Arc::clone(tokenizer), size);
    let mut ids = Vec::new();
    for piece in bytes.chunks(size.div_ceil(3)) {
        stream.push(piece, &mut ids).expect("every byte has a token");
    }
    stream.finish(&mut ids).expect("every byte has a token");
    assert!(ids == whole, "pieces encode differently");
});
