//! Token stores and batch loaders, as `src/token-store.ts` and `src/training/` use them.

use std::path::PathBuf;
use std::sync::Arc;

use kindling_core::data::{self, BatchSpec, Metadata, WindowOrder, token_entropy};
use kindling_core::{Error, Result};
use napi::bindgen_prelude::{AsyncTask, ClassInstance, Int32Array};

pub use crate::batch::Batch;
use crate::error::to_napi;
use crate::monitor::Monitor;
use crate::options::{integer, size};
use crate::task::{Job, spawn};

/// Metadata of a store, from `store.json` or, without one, from the sizes of the files.
#[napi(object)]
pub struct StoreMetadata {
    /// Number of tokens.
    pub length: f64,
    /// Bytes of the encoded text; absent if unknown.
    pub bytes: Option<f64>,
    /// Tokens per chunk file.
    pub chunk_size: f64,
    /// Integer type of the ids, as numpy names it: `int32`, `int64` or `uint16`.
    pub dtype: String,
    /// Path of the tokenizer, relative to the store's folder; absent if unknown.
    pub tokenizer_path: Option<String>,
    /// `Tokenizer.hash` of the tokenizer that encoded the store; absent if unknown.
    pub tokenizer_hash: Option<String>,
    /// The largest token id; absent if unknown.
    pub max_id: Option<u32>,
    /// Bytes of invalid UTF-8 in the input that became U+FFFD.
    pub replaced_bytes: f64,
}

impl From<&Metadata> for StoreMetadata {
    fn from(metadata: &Metadata) -> Self {
        Self {
            length: metadata.length as f64,
            bytes: metadata.bytes.map(|bytes| bytes as f64),
            chunk_size: metadata.chunk_size as f64,
            dtype: metadata.dtype.clone(),
            tokenizer_path: metadata.tokenizer_path.clone(),
            tokenizer_hash: metadata.tokenizer_hash.clone(),
            max_id: metadata.max_id,
            replaced_bytes: metadata.replaced_bytes as f64,
        }
    }
}

/// Identifies one batch of a run.
#[napi(object)]
pub struct BatchOptions {
    /// Windows per batch.
    pub batch_size: f64,
    /// Tokens per window.
    pub seq_length: f64,
    /// Seed of the run.
    pub seed: f64,
    /// Step of the run, from 1.
    pub step: f64,
    /// Index among the batches of the step, from 0.
    pub micro_batch: f64,
    /// Batches per step.
    pub accumulate: f64,
    /// Order of the windows: `random`, `epoch`, `sequential` or `dense`.
    pub sampling: String,
}

impl BatchOptions {
    fn lower(&self) -> Result<BatchSpec> {
        Ok(BatchSpec {
            batch_size: size("batchSize", self.batch_size)?,
            seq_length: size("seqLength", self.seq_length)?,
            seed: integer("seed", self.seed)?,
            step: integer("step", self.step)?,
            micro_batch: size("microBatch", self.micro_batch)? as u32,
            accumulate: size("accumulate", self.accumulate)? as u32,
            order: window_order(&self.sampling)?,
        })
    }
}

fn window_order(name: &str) -> Result<WindowOrder> {
    Ok(match name {
        "random" => WindowOrder::Random,
        "epoch" => WindowOrder::Epoch,
        "sequential" => WindowOrder::Sequential,
        "dense" => WindowOrder::Dense,
        other => {
            return Err(Error::argument(format!(
                "sampling is {other}; it must be random, epoch, sequential or dense"
            )));
        }
    })
}

/// An open store of token ids. The public class is in `src/token-store.ts`.
#[napi]
pub struct TokenStore {
    pub(crate) inner: Arc<data::TokenStore>,
}

/// A long call on a store.
type Call<T> = AsyncTask<Job<(), T>>;

#[napi]
impl TokenStore {
    /// Opens a folder of chunk files, one .npy file (int32, int64 or uint16), or one raw .bin file
    /// of uint16. Fails with `ERR_NOT_FOUND`, or `ERR_INVALID_STORE` if files are missing or
    /// disagree.
    #[napi(catch_unwind, ts_return_type = "Promise<TokenStore>")]
    pub fn open(path: String) -> Call<TokenStore> {
        spawn((), move |()| {
            Ok(Self { inner: Arc::new(data::TokenStore::open(PathBuf::from(path))?) })
        })
    }

    /// Number of tokens.
    #[napi(getter, catch_unwind)]
    pub fn length(&self) -> f64 {
        self.inner.len() as f64
    }

    /// Metadata of the store.
    #[napi(getter, catch_unwind)]
    pub fn metadata(&self) -> StoreMetadata {
        self.inner.metadata().into()
    }

    /// Returns a copy of the tokens from `start` up to but not including `end`. Throws
    /// `ERR_RANGE_OUT_OF_BOUNDS`.
    #[napi(catch_unwind)]
    pub fn load_by_range(&self, start: f64, end: f64) -> napi::Result<Int32Array> {
        let load = || self.inner.load_by_range(integer("start", start)?, integer("end", end)?);
        Ok(load().map_err(to_napi)?.into())
    }

    /// Returns one batch of a run, a pure function of `options`. Throws `ERR_STORE_TOO_SHORT` or
    /// `ERR_INVALID_ARGUMENT`.
    #[napi(catch_unwind)]
    pub fn batch(&self, options: BatchOptions) -> napi::Result<Batch> {
        let batch = options.lower().and_then(|spec| self.inner.batch(&spec)).map_err(to_napi)?;
        Ok(Batch { inner: Arc::new(batch) })
    }

    /// Returns the number of consecutive windows of `seqLength` tokens, each followed by at least
    /// one token. Throws `ERR_STORE_TOO_SHORT` if there are none.
    #[napi(catch_unwind)]
    pub fn num_windows(&self, seq_length: f64) -> napi::Result<f64> {
        let windows =
            size("seqLength", seq_length).and_then(|length| self.inner.num_windows(length));
        Ok(windows.map_err(to_napi)? as f64)
    }

    /// Returns a batch of `count` consecutive windows, from number `first` on; window i starts at
    /// token i x `seqLength`. Throws `ERR_INVALID_ARGUMENT` for windows past the end.
    #[napi(catch_unwind)]
    pub fn evaluation_batch(&self, seq_length: f64, first: f64, count: f64) -> napi::Result<Batch> {
        let batch = || {
            let (length, count) = (size("seqLength", seq_length)?, size("count", count)?);
            self.inner.evaluation_batch(length, integer("firstWindow", first)?, count)
        };
        Ok(Batch { inner: Arc::new(batch().map_err(to_napi)?) })
    }

    /// Checks that every id is below `vocabSize`; reads all of them unless the largest is known.
    /// Fails with `ERR_TOKEN_OUT_OF_RANGE`, naming the first such id and its position.
    #[napi(catch_unwind, ts_return_type = "Promise<void>")]
    pub fn check_vocab(&self, vocab_size: f64, monitor: &Monitor) -> napi::Result<Call<()>> {
        let vocab_size = size("vocabSize", vocab_size).map_err(to_napi)?;
        let (store, mut progress) = (Arc::clone(&self.inner), monitor.progress());
        Ok(spawn((), move |()| store.check_vocab(vocab_size, &mut progress)))
    }

    /// Compares `store.json` and every chunk with their checksums. Returns the number of chunks
    /// compared; 0 if the store has no checksums. Fails with `ERR_INVALID_STORE` naming the chunks
    /// that differ.
    #[napi(catch_unwind, ts_return_type = "Promise<number>")]
    pub fn verify(&self, monitor: &Monitor) -> Call<f64> {
        let (store, mut progress) = (Arc::clone(&self.inner), monitor.progress());
        spawn((), move |()| Ok(store.verify(&mut progress)? as f64))
    }

    /// Returns the unigram entropy in nats per token: the loss of a model that knows only how often
    /// each id below `vocabSize` occurs. Fails as `checkVocab` does.
    #[napi(catch_unwind, ts_return_type = "Promise<number>")]
    pub fn token_entropy(&self, vocab_size: f64, monitor: &Monitor) -> napi::Result<Call<f64>> {
        let vocab_size = size("vocabSize", vocab_size).map_err(to_napi)?;
        let (store, mut progress) = (Arc::clone(&self.inner), monitor.progress());
        Ok(spawn((), move |()| Ok(token_entropy(&store.token_counts(vocab_size, &mut progress)?))))
    }
}

/// Options for all batches of a run.
#[napi(object)]
pub struct LoaderOptions {
    /// Windows per batch.
    pub batch_size: f64,
    /// Tokens per window.
    pub seq_length: f64,
    /// Seed of the run.
    pub seed: f64,
    /// Batches per step.
    pub accumulate: f64,
    /// Order of the windows: `random`, `epoch`, `sequential` or `dense`.
    pub sampling: String,
    /// Number of batches to prefetch; 0 reads each one when it is asked for.
    pub prefetch: f64,
}

impl LoaderOptions {
    fn lower(&self) -> Result<data::LoaderOptions> {
        Ok(data::LoaderOptions {
            batch_size: size("batchSize", self.batch_size)?,
            seq_length: size("seqLength", self.seq_length)?,
            seed: integer("seed", self.seed)?,
            accumulate: size("accumulate", self.accumulate)? as u32,
            order: window_order(&self.sampling)?,
            prefetch: size("prefetch", self.prefetch)?,
        })
    }
}

/// Loads the batches of a run, and prefetches consecutive ones on a separate thread.
#[napi]
pub struct BatchLoader {
    inner: Arc<data::BatchLoader>,
}

/// A batch of a run: its step, from 1, and its index in the step, from 0.
struct BatchIndex {
    step: u64,
    micro_batch: u32,
}

impl BatchIndex {
    fn new(step: f64, micro_batch: f64) -> Result<Self> {
        let micro_batch = size("microBatch", micro_batch)? as u32;
        Ok(Self { step: integer("step", step)?, micro_batch })
    }
}

/// The place of one window of a batch.
#[napi(object)]
pub struct Window {
    /// Index of its store in the loader's list.
    pub store: u32,
    /// Position of its first token in that store.
    pub start: f64,
}

#[napi]
impl BatchLoader {
    /// Creates a loader that mixes `stores` by `weights`, which need not add up to 1. Throws
    /// `ERR_INVALID_ARGUMENT` for a weight that is not positive, and `ERR_STORE_TOO_SHORT` for a
    /// store without a window.
    #[napi(constructor, catch_unwind)]
    pub fn new(
        stores: Vec<ClassInstance<TokenStore>>,
        weights: Vec<f64>,
        options: LoaderOptions,
    ) -> napi::Result<Self> {
        let parts = stores.iter().map(|store| Arc::clone(&store.inner)).zip(weights).collect();
        let loader = options.lower().and_then(|options| data::BatchLoader::new(parts, options));
        Ok(Self { inner: Arc::new(loader.map_err(to_napi)?) })
    }

    /// Returns a batch if it is already prefetched, else null. Never waits. Steps count from 1,
    /// micro-batches from 0.
    #[napi(catch_unwind)]
    pub fn ready(&self, step: f64, micro_batch: f64) -> napi::Result<Option<Batch>> {
        let ready = || {
            let index = BatchIndex::new(step, micro_batch)?;
            self.inner.ready(index.step, index.micro_batch)
        };
        Ok(ready().map_err(to_napi)?.map(|batch| Batch { inner: Arc::new(batch) }))
    }

    /// Returns a batch, waiting for it if necessary. Steps count from 1, micro-batches from 0.
    #[napi(catch_unwind, ts_return_type = "Promise<Batch>")]
    pub fn next(&self, step: f64, micro_batch: f64) -> napi::Result<Call<Batch>> {
        let index = BatchIndex::new(step, micro_batch).map_err(to_napi)?;
        let loader = Arc::clone(&self.inner);
        Ok(spawn((), move |()| {
            Ok(Batch { inner: Arc::new(loader.next(index.step, index.micro_batch)?) })
        }))
    }

    /// Returns where each row of a batch comes from.
    #[napi(catch_unwind)]
    pub fn windows(&self, step: f64, micro_batch: f64) -> napi::Result<Vec<Window>> {
        let windows = || {
            let index = BatchIndex::new(step, micro_batch)?;
            self.inner.windows(index.step, index.micro_batch)
        };
        let windows = windows().map_err(to_napi)?.into_iter();
        Ok(windows
            .map(|(store, start)| Window { store: store as u32, start: start as f64 })
            .collect())
    }

    /// Ends the thread that prefetches batches; a later call starts another.
    #[napi(catch_unwind)]
    pub fn stop(&self) {
        self.inner.stop();
    }
}
