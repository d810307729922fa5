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

/// The content of `store.json`, or else what the sizes of the files tell.
#[napi(object)]
pub struct StoreMetadata {
    /// The number of tokens.
    pub length: f64,
    /// Bytes of the text that the tokens encode.
    pub bytes: Option<f64>,
    /// Tokens per chunk file.
    pub chunk_size: f64,
    /// numpy's name of the element type.
    pub dtype: String,
    /// The path of the tokenizer, relative to the store's folder.
    pub tokenizer_path: Option<String>,
    /// A hash of the tokenizer's content.
    pub tokenizer_hash: Option<String>,
    /// The largest token id.
    pub max_id: Option<u32>,
    /// Bytes of the input that were invalid UTF-8 and became U+FFFD.
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
    /// The seed of the run.
    pub seed: f64,
    /// The step, from 1.
    pub step: f64,
    /// The index among the step's accumulated batches, from 0.
    pub micro_batch: f64,
    /// Batches per step.
    pub accumulate: f64,
    /// The order of the windows: `random`, `epoch`, `sequential` or `dense`.
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

/// An open store of token ids.
#[napi]
pub struct TokenStore {
    pub(crate) inner: Arc<data::TokenStore>,
}

/// A long call on a store.
type Call<T> = AsyncTask<Job<(), T>>;

#[napi]
impl TokenStore {
    /// Opens a folder of chunks, a .npy or a .bin file.
    #[napi(catch_unwind, ts_return_type = "Promise<TokenStore>")]
    pub fn open(path: String) -> Call<TokenStore> {
        spawn((), move |()| {
            Ok(Self { inner: Arc::new(data::TokenStore::open(PathBuf::from(path))?) })
        })
    }

    /// Returns the number of tokens.
    #[napi(getter, catch_unwind)]
    pub fn length(&self) -> f64 {
        self.inner.len() as f64
    }

    /// Returns the metadata of the store.
    #[napi(getter, catch_unwind)]
    pub fn metadata(&self) -> StoreMetadata {
        self.inner.metadata().into()
    }

    /// Returns the tokens `start..end`.
    #[napi(catch_unwind)]
    pub fn load_by_range(&self, start: f64, end: f64) -> napi::Result<Int32Array> {
        let load = || self.inner.load_by_range(integer("start", start)?, integer("end", end)?);
        Ok(load().map_err(to_napi)?.into())
    }

    /// Returns a batch of a run.
    #[napi(catch_unwind)]
    pub fn batch(&self, options: BatchOptions) -> napi::Result<Batch> {
        let batch = options.lower().and_then(|spec| self.inner.batch(&spec)).map_err(to_napi)?;
        Ok(Batch { inner: Arc::new(batch) })
    }

    /// Returns the number of consecutive windows of `seq_length` tokens.
    #[napi(catch_unwind)]
    pub fn num_windows(&self, seq_length: f64) -> napi::Result<f64> {
        let windows =
            size("seqLength", seq_length).and_then(|length| self.inner.num_windows(length));
        Ok(windows.map_err(to_napi)? as f64)
    }

    /// Returns windows `first..first + count` of the consecutive windows of `seq_length` tokens.
    #[napi(catch_unwind)]
    pub fn evaluation_batch(&self, seq_length: f64, first: f64, count: f64) -> napi::Result<Batch> {
        let batch = || {
            let (length, count) = (size("seqLength", seq_length)?, size("count", count)?);
            self.inner.evaluation_batch(length, integer("firstWindow", first)?, count)
        };
        Ok(Batch { inner: Arc::new(batch().map_err(to_napi)?) })
    }

    /// Checks that every id is below `vocab_size`.
    #[napi(catch_unwind, ts_return_type = "Promise<void>")]
    pub fn check_vocab(&self, vocab_size: f64, monitor: &Monitor) -> napi::Result<Call<()>> {
        let vocab_size = size("vocabSize", vocab_size).map_err(to_napi)?;
        let (store, mut progress) = (Arc::clone(&self.inner), monitor.progress());
        Ok(spawn((), move |()| store.check_vocab(vocab_size, &mut progress)))
    }

    /// Compares every chunk with its checksum; returns the number of chunks compared.
    #[napi(catch_unwind, ts_return_type = "Promise<number>")]
    pub fn verify(&self, monitor: &Monitor) -> Call<f64> {
        let (store, mut progress) = (Arc::clone(&self.inner), monitor.progress());
        spawn((), move |()| Ok(store.verify(&mut progress)? as f64))
    }

    /// Returns the unigram entropy in nats.
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
    /// The seed of the run.
    pub seed: f64,
    /// Batches per step.
    pub accumulate: f64,
    /// The order of the windows: `random`, `epoch`, `sequential` or `dense`.
    pub sampling: String,
    /// The number of batches to prefetch.
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

/// Loads the batches of a run, prefetching them.
#[napi]
pub struct BatchLoader {
    inner: Arc<data::BatchLoader>,
}

/// Identifies a batch of a run.
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

/// A window of a batch.
#[napi(object)]
pub struct Window {
    /// Position of its store in the list of stores.
    pub store: u32,
    /// Its first token.
    pub start: f64,
}

#[napi]
impl BatchLoader {
    /// Creates a loader for a mixture of `stores` with these weights.
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

    /// Returns a batch if it is already prefetched.
    #[napi(catch_unwind)]
    pub fn ready(&self, step: f64, micro_batch: f64) -> napi::Result<Option<Batch>> {
        let ready = || {
            let index = BatchIndex::new(step, micro_batch)?;
            self.inner.ready(index.step, index.micro_batch)
        };
        Ok(ready().map_err(to_napi)?.map(|batch| Batch { inner: Arc::new(batch) }))
    }

    /// Returns a batch, waiting for it if necessary.
    #[napi(catch_unwind, ts_return_type = "Promise<Batch>")]
    pub fn next(&self, step: f64, micro_batch: f64) -> napi::Result<Call<Batch>> {
        let index = BatchIndex::new(step, micro_batch).map_err(to_napi)?;
        let loader = Arc::clone(&self.inner);
        Ok(spawn((), move |()| {
            Ok(Batch { inner: Arc::new(loader.next(index.step, index.micro_batch)?) })
        }))
    }

    /// Returns the windows of a batch.
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

    /// Ends the thread that prefetches batches.
    #[napi(catch_unwind)]
    pub fn stop(&self) {
        self.inner.stop();
    }
}
