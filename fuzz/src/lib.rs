//! Helpers of the fuzz targets: folders in memory, inputs of several files, and the properties that
//! everything that can be read must have.
//!
//! Whatever the input, a reader returns a value or an error other than `ERR_INTERNAL`, which would
//! be a bug, and never panics. libFuzzer limits memory and time.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use kindling_core::config::ModelConfig;
use kindling_core::data::{Batch, BatchSpec, TokenStore, WindowOrder};
use kindling_core::device::Device;
use kindling_core::model::Transformer;
use kindling_core::progress::silent;
use kindling_core::tokenizer::Tokenizer;
use kindling_core::{Error, Result};

/// Separates the files of one input. It is text, so that seeds can be read and written by hand.
pub const SEPARATOR: &[u8] = b"\n%%%%\n";
const TEXT: &str = "the sea, the Sea's 12 345\n\n  é日😀\u{301}<|endoftext|>!? \r\n\t'll x";

/// Returns the empty folder `name` of this process, in memory if possible.
pub fn empty_folder(name: &str) -> PathBuf {
    static ROOT: OnceLock<PathBuf> = OnceLock::new();
    let root = ROOT.get_or_init(|| {
        let memory = Path::new("/dev/shm");
        let parent = if memory.is_dir() { memory.to_path_buf() } else { std::env::temp_dir() };
        parent.join(format!("kindling-fuzz-{}", std::process::id()))
    });
    let folder = root.join(name);
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).expect("a folder in memory");
    folder
}

/// Writes a file and returns its path.
pub fn file(folder: &Path, name: &str, bytes: &[u8]) -> PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, bytes).expect("a file in memory");
    path
}

/// Splits an input into files. The last ones are absent if there are too few separators.
pub fn split<const N: usize>(mut data: &[u8]) -> [Option<&[u8]>; N] {
    std::array::from_fn(|_| {
        if data.is_empty() {
            return None;
        }
        let end = data.windows(SEPARATOR.len()).position(|window| window == SEPARATOR);
        let (part, rest) = match end {
            Some(end) => (&data[..end], &data[end + SEPARATOR.len()..]),
            None => (data, &[][..]),
        };
        data = rest;
        Some(part)
    })
}

/// Returns the value of a call, or `None` if it failed.
///
/// # Panics
/// Panics on `ERR_INTERNAL` and on an error without a message.
pub fn sound<T>(result: Result<T>) -> Option<T> {
    match result {
        Ok(value) => Some(value),
        Err(error @ Error::Internal(_)) => panic!("{error}"),
        Err(error) => {
            assert!(!error.to_string().is_empty());
            None
        }
    }
}

/// Returns the configuration of a tiny model.
pub fn small_config() -> ModelConfig {
    ModelConfig {
        vocab_size: 13,
        d_model: 4,
        num_heads: 2,
        num_kv_heads: 2,
        d_ff: 6,
        num_layers: 1,
        max_seq_length: 8,
        ..ModelConfig::PLAIN
    }
}

/// Builds the tiny model.
pub fn small_model() -> Transformer {
    Transformer::new(small_config(), Device::cpu(1), 1).expect("a model of 300 weights")
}

/// Reads a store in every way that there is, and checks that the results agree.
pub fn read_store(store: &TokenStore) {
    let length = store.len();
    for (start, end) in [(0, length.min(64)), (length.saturating_sub(64), length), (1, 0)] {
        if let Some(ids) = sound(store.load_by_range(start, end)) {
            assert_eq!(ids.len() as u64, end - start);
        }
    }
    assert!(store.load_by_range(length, length + 1).is_err());
    let vocab_size = small_config().vocab_size;
    for order in [WindowOrder::Random, WindowOrder::Epoch, WindowOrder::Dense] {
        let (seed, step, micro_batch, accumulate) = (length, 1 + length, 0, 1);
        let (batch_size, seq_length) = (2, 3);
        let spec = BatchSpec { batch_size, seq_length, seed, step, micro_batch, accumulate, order };
        if let Some(batch) = sound(store.batch(&spec)) {
            check_loss(&batch);
        }
    }
    sound(store.evaluation_batch(2, 0, 1));
    let is_known = sound(store.check_vocab(vocab_size, &mut silent)).is_some();
    if let Some(counts) = sound(store.token_counts(vocab_size, &mut silent)) {
        assert_eq!(counts.iter().sum::<u64>(), length);
    } else if is_known {
        // `check_vocab` trusts the largest id in store.json, which may be too small. A model must
        // then reject the ids, as `check_loss` does above.
        assert!(store.metadata().max_id.is_some());
    }
    sound(store.verify(&mut silent));
}

/// Computes the loss of a batch, whose ids may be outside the vocabulary.
fn check_loss(batch: &Batch) {
    thread_local! {
        static MODEL: std::cell::RefCell<Transformer> = std::cell::RefCell::new(small_model());
    }
    let Batch { x, targets, batch_size, seq_length } = batch;
    MODEL.with_borrow_mut(|model| sound(model.loss(x, targets, *batch_size, *seq_length)));
}

/// Encodes and decodes with a tokenizer that was read from files, saves it, and opens it again.
pub fn use_tokenizer(tokenizer: &Tokenizer) {
    let encode = |tokenizer: &Tokenizer| sound(tokenizer.encode(TEXT));
    let ids = encode(tokenizer);
    if let Some(ids) = &ids {
        assert!(ids.iter().all(|&id| (id as usize) < tokenizer.vocab_size()));
        sound(tokenizer.decode(ids));
    }
    let folder = empty_folder("saved");
    let Some(()) = sound(tokenizer.save(&folder)) else { return };
    let read = Tokenizer::open(&folder).expect("a tokenizer that was saved opens");
    assert_eq!(read.hash(), tokenizer.hash());
    assert!(encode(&read) == ids, "a saved tokenizer encodes differently");
}
