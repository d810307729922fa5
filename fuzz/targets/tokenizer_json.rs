//! Input: a Hugging Face tokenizer.json.
#![no_main]

use kindling_core::tokenizer::Tokenizer;
use kindling_fuzz::{empty_folder, file, sound, use_tokenizer};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let path = file(&empty_folder("tokenizer"), "tokenizer.json", data);
    if let Some(tokenizer) = sound(Tokenizer::open(path)) {
        use_tokenizer(&tokenizer);
    }
});
