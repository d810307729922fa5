//! Input: the files of a token store, which are store.json and two chunks.
#![no_main]

use kindling_core::data::TokenStore;
use kindling_fuzz::{empty_folder, file, read_store, sound, split};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let folder = empty_folder("store_chunks");
    let names = ["store.json", "encoded_tokens_chunk_0.dat", "encoded_tokens_chunk_1.dat"];
    for (name, bytes) in names.iter().zip(split::<3>(data)) {
        if let Some(bytes) = bytes {
            file(&folder, name, bytes);
        }
    }
    if let Some(store) = sound(TokenStore::open(&folder)) {
        read_store(&store);
    }
});
