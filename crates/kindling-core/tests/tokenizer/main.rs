//! Tests the tokenizer against tiktoken, Hugging Face `tokenizers`, the course's reference
//! training, and Python's decoding.

mod encoding;
mod files;
mod hugging_face_patterns;
mod hugging_face_rules;
mod reference;
mod stream;
mod training;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use kindling_core::random::{Purpose, below};
use kindling_core::tokenizer::Tokenizer;

/// The special token of every fixture.
const END: &str = "<|endoftext|>";

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tokenizer").join(name)
}

fn text(name: &str) -> String {
    let path = match name {
        "moby-dick.txt" => Path::new(env!("CARGO_MANIFEST_DIR")).join("../../assets/moby-dick.txt"),
        _ => fixture(name),
    };
    std::fs::read_to_string(path).unwrap()
}

fn json<T: serde::de::DeserializeOwned>(name: &str) -> T {
    serde_json::from_str(&text(name)).unwrap()
}

fn strings(tokens: &[&str]) -> Vec<String> {
    tokens.iter().map(|token| (*token).to_owned()).collect()
}

fn gpt2_with(special: &[&str]) -> Tokenizer {
    Tokenizer::from_files(fixture("gpt2_vocab.json"), fixture("gpt2_merges.txt"), &strings(special))
        .unwrap()
}

fn gpt2() -> Tokenizer {
    gpt2_with(&[END])
}

/// A temporary folder, removed when it is dropped.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!(
            "kindling-tokenizer-{}-{}",
            std::process::id(),
            COUNT.fetch_add(1, Ordering::Relaxed)
        );
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    /// Writes a file in the folder and returns its path.
    fn file(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, content).unwrap();
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A generator of pseudorandom numbers, determined by its seed.
struct Draw {
    seed: u64,
    count: u64,
}

impl Draw {
    fn new(seed: u64) -> Self {
        Self { seed, count: 0 }
    }

    fn below(&mut self, bound: usize) -> usize {
        self.count += 1;
        below(self.seed, Purpose::Benchmark, self.count, 0, bound as u64) as usize
    }

    fn string(&mut self, length: usize, pieces: &[&str]) -> String {
        (0..length).map(|_| pieces[self.below(pieces.len())]).collect()
    }
}
