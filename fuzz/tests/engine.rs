//! Runs the parts of the engine that share memory between threads or use `unsafe`, on inputs small
//! enough for AddressSanitizer and ThreadSanitizer (scripts/campaigns/sanitizers.js). Results are
//! only compared between numbers of threads; other tests check that they are right.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use kindling_core::checkpoint::{self, Snapshot};
use kindling_core::config::ModelConfig;
use kindling_core::corpus::{Corpus, TEXT_FIELD};
use kindling_core::data::{
    BatchLoader, EncodeOptions, LoaderOptions, TokenStore, WindowOrder, encode_files,
};
use kindling_core::decode::{Generator, GeneratorOptions, SamplingOptions};
use kindling_core::device::Device;
use kindling_core::model::Transformer;
use kindling_core::optim::{AdamW, AdamWOptions, Optimizer as _};
use kindling_core::pool::Pool;
use kindling_core::progress::silent;
use kindling_core::tokenizer::{END_OF_TEXT, Kind, Pattern, Tokenizer, TrainOptions};

/// A temporary folder, removed when dropped.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("kindling-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Writes a text of about `kilobytes` KiB that repeats a few words.
fn text(folder: &Path, kilobytes: usize) -> PathBuf {
    let words = ["the ", "sea", " whale's", " 1851", "\n", " Ishmael, ", "é日", "😀", "they'll "];
    let mut text = String::new();
    let mut state = 1_u32;
    while text.len() < kilobytes << 10 {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        text.push_str(words[(state >> 20) as usize % words.len()]);
    }
    let path = folder.join("text.txt");
    std::fs::write(&path, text).unwrap();
    path
}

fn trained(path: &Path, threads: usize) -> Tokenizer {
    let corpus = Corpus::find(&[path.to_path_buf()], None, TEXT_FIELD).unwrap();
    let options = TrainOptions {
        vocab_size: 300,
        special_tokens: vec![END_OF_TEXT.to_owned()],
        kind: Kind::Bpe,
        pattern: Pattern::Gpt2,
        threads,
        min_frequency: 1,
        max_bytes: None,
    };
    Tokenizer::train_on(&corpus, &options, &mut silent, &mut silent).unwrap().0
}

#[test]
fn jobs_of_a_pool_run_each_task_once_whoever_calls() {
    let pool = Pool::new(4);
    let total = AtomicU32::new(0);
    let mut sums = vec![0_u32; 64];
    std::thread::scope(|scope| {
        for part in sums.chunks_mut(16) {
            let (pool, total) = (&pool, &total);
            scope.spawn(move || {
                for _ in 0..200 {
                    let cells: Vec<_> = part.iter().map(|&sum| AtomicU32::new(sum)).collect();
                    pool.run(cells.len(), |task| {
                        cells[task].fetch_add(1, Ordering::Relaxed);
                        pool.run(2, |_| {
                            total.fetch_add(1, Ordering::Relaxed);
                        });
                    });
                    for (sum, cell) in part.iter_mut().zip(cells) {
                        *sum = cell.into_inner();
                    }
                }
            });
        }
    });
    assert!(sums.iter().all(|&sum| sum == 200));
    assert_eq!(total.into_inner(), 64 * 200 * 2);
}

#[test]
fn a_panic_in_a_task_reaches_the_caller_and_the_pool_goes_on() {
    let pool = Pool::new(3);
    for _ in 0..20 {
        let run = || pool.run(9, |task| assert!(task != 4, "task four"));
        assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)).is_err());
        let count = AtomicU32::new(0);
        pool.run(9, |_| {
            count.fetch_add(1, Ordering::Relaxed);
        });
        assert_eq!(count.into_inner(), 9);
    }
}

#[test]
fn threads_share_the_caches_of_a_tokenizer() {
    let folder = Folder::new("caches");
    let path = text(&folder.0, 600);
    let tokenizer = trained(&path, 4);
    assert_eq!(tokenizer.hash(), trained(&path, 1).hash());
    let text = std::fs::read_to_string(&path).unwrap();
    let expected = tokenizer.encode(&text).unwrap();
    tokenizer.expect_much_text();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| assert!(tokenizer.encode(&text).unwrap() == expected));
        }
    });
    let (tokens, _) = tokenizer.count_tokens(&[path], 4, &mut silent).unwrap();
    assert_eq!(tokens, expected.len() as u64);
}

#[test]
fn stores_are_encoded_and_read_by_several_threads() {
    let folder = Folder::new("stores");
    let path = text(&folder.0, 900);
    let tokenizer = Arc::new(trained(&path, 2));
    let stores = [1, 4].map(|threads| {
        let out = folder.0.join(format!("{threads}_chunks"));
        let options = EncodeOptions { threads, chunk_size: 10_000, ..EncodeOptions::default() };
        encode_files(&[path.clone()], &tokenizer, &out, &options, &mut silent).unwrap();
        let store = TokenStore::open(&out).unwrap();
        store.verify(&mut silent).unwrap();
        Arc::new(store)
    });
    assert_eq!(stores[0].metadata().checksums, stores[1].metadata().checksums);
    let options = LoaderOptions {
        batch_size: 4,
        seq_length: 16,
        seed: 1,
        accumulate: 2,
        order: WindowOrder::Random,
        prefetch: 3,
    };
    let loader = || {
        let parts = stores.iter().map(|store| (Arc::clone(store), 1.0)).collect();
        BatchLoader::new(parts, options).unwrap()
    };
    let (loader, again) = (loader(), loader());
    for step in 1..20 {
        for micro_batch in 0..2 {
            let batch = loader.next(step, micro_batch).unwrap();
            assert_eq!(batch, again.next(step, micro_batch).unwrap());
        }
    }
    // The loaders are dropped here while they prefetch.
}

fn config() -> ModelConfig {
    ModelConfig {
        vocab_size: 70,
        d_model: 48,
        num_heads: 3,
        num_kv_heads: 1,
        d_ff: 72,
        num_layers: 2,
        max_seq_length: 24,
        ..ModelConfig::PLAIN
    }
}

fn adamw(model: &Transformer) -> AdamW {
    let options =
        AdamWOptions { betas: (0.9, 0.95), eps: 1e-8, weight_decay: 0.1, groups: Vec::new() };
    AdamW::new(model, &options).unwrap()
}

/// Builds a model and trains it for three steps.
fn model_after_steps(threads: usize) -> (Transformer, AdamW) {
    let mut model = Transformer::new(config(), Device::cpu(threads), 1).unwrap();
    let mut optimizer = adamw(&model);
    for _ in 0..3 {
        step(&mut model, &mut optimizer);
    }
    (model, optimizer)
}

fn step(model: &mut Transformer, optimizer: &mut AdamW) {
    let ids: Vec<u32> = (0..48).map(|i| i * 7 % 70).collect();
    let targets: Vec<i32> = (0..48).map(|i| i * 5 % 70).collect();
    model.forward_backward(&ids, &targets, 2, 24, 1.0).unwrap();
    optimizer.step(model, 1e-3).unwrap();
}

#[test]
fn models_train_save_load_and_decode_on_several_threads_at_once() {
    let folder = Folder::new("models");
    let (one, _) = model_after_steps(1);
    let expected = one.state_dict().unwrap();
    std::thread::scope(|scope| {
        for name in ["a", "b"] {
            let (expected, path) = (&expected, folder.0.join(name));
            scope.spawn(move || {
                let (model, optimizer) = model_after_steps(3);
                assert!(model.state_dict().unwrap() == *expected, "other weights on 3 threads");
                let run = serde_json::json!({});
                checkpoint::save(&path, &model, Some(&optimizer), 3, run).unwrap();
                let mut read = Transformer::new(config(), Device::cpu(2), 2).unwrap();
                let mut moments = adamw(&read);
                checkpoint::load(&path, &mut read, Some(&mut moments)).unwrap();
                assert!(read.state_dict().unwrap() == *expected);
                decode(&mut read);
            });
        }
    });
}

#[test]
fn a_snapshot_is_written_while_training_goes_on() {
    let folder = Folder::new("snapshots");
    let (mut model, mut optimizer) = model_after_steps(3);
    let expected = model.state_dict().unwrap();
    let run = serde_json::json!({});
    let snapshot = Snapshot::take(&model, Some(&optimizer), 3, run).unwrap().unwrap();
    let path = folder.0.join("step");
    std::thread::scope(|scope| {
        scope.spawn(|| snapshot.write(&path).unwrap());
        for _ in 0..3 {
            step(&mut model, &mut optimizer);
        }
    });
    assert!(model.state_dict().unwrap() != expected, "no step was taken");
    checkpoint::load(&path, &mut model, Some(&mut optimizer)).unwrap();
    assert!(model.state_dict().unwrap() == expected, "the snapshot has later weights");
}

fn decode(model: &mut Transformer) {
    let sampling =
        SamplingOptions { temperature: 0.8, top_k: Some(9), top_p: 0.9, repetition_penalty: 1.1 };
    let stop = Vec::new();
    let options = GeneratorOptions {
        max_tokens: 30,
        sampling,
        seed: 1,
        stop,
        rolling_cache: false,
        limit_vocab: None,
    };
    let mut generator = Generator::new(model, &[vec![1, 2, 3], vec![4]], options).unwrap();
    while generator.next(model).unwrap().is_some() {}
    assert!(generator.tokens(0).len() == 33 && generator.tokens(1).len() == 31);
}
