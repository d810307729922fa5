//! Input: a byte, then a file of token ids, .bin if the byte is even, else .npy.
#![no_main]

use kindling_core::data::TokenStore;
use kindling_fuzz::{empty_folder, file, read_store, sound};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Some((kind, bytes)) = data.split_first() else { return };
    let name = if kind & 1 == 0 { "tokens.bin" } else { "tokens.npy" };
    let path = file(&empty_folder("file"), name, bytes);
    if let Some(store) = sound(TokenStore::open(path)) {
        read_store(&store);
    }
});
