//! Input: vocab.json, merges.txt, and special tokens, one per line.
#![no_main]

use kindling_core::tokenizer::Tokenizer;
use kindling_fuzz::{empty_folder, file, sound, split, use_tokenizer};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let folder = empty_folder("tokenizer");
    let [vocab, merges, special] = split::<3>(data).map(Option::unwrap_or_default);
    let (vocab, merges) = (file(&folder, "vocab.json", vocab), file(&folder, "merges.txt", merges));
    let special: Vec<_> = String::from_utf8_lossy(special).lines().map(str::to_owned).collect();
    for opened in [Tokenizer::from_files(vocab, merges, &special), Tokenizer::open(&folder)] {
        if let Some(tokenizer) = sound(opened) {
            use_tokenizer(&tokenizer);
        }
    }
});
