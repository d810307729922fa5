//! Encodes text files to token stores, and merges and splits stores.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use kindling_core::data::{self, Document};
use kindling_core::{Error, Result};
use napi::bindgen_prelude::{AsyncTask, ClassInstance};

use crate::error::to_napi;
use crate::monitor::Monitor;
use crate::options::{element, format, integer, paths, thread_count};
use crate::store::TokenStore;
use crate::task::{Job, spawn};
use crate::tokenizer::Tokenizer;

/// Options for encoding text files.
#[napi(object)]
pub struct EncodeOptions {
    /// Tokens per chunk file.
    pub chunk_size: f64,
    /// Fraction of the tokens, taken from the end, that goes to the validation store; in [0, 1).
    pub valid_fraction: f64,
    /// Integer type of the chunk files: `int32` or `uint16`.
    pub token_dtype: String,
    /// Number of threads. It does not change the tokens.
    pub threads: f64,
    /// Path of the tokenizer, for a store without a copy next to it.
    pub tokenizer_path: Option<String>,
    /// `text`, `jsonl` or `parquet`; by default recognized by each file's name.
    pub format: Option<String>,
    /// The JSON Lines field or Parquet column that holds the text.
    pub text_field: String,
    /// The unit that no token crosses: `file`, `line` or `block` (lines between blank ones). By
    /// default a text file as a whole, or each text of JSON Lines and Parquet.
    pub document: Option<String>,
    /// Appends `<|endoftext|>` to every non-empty document.
    pub append_eot: bool,
    /// Continues the work of a killed call with the same files and options.
    pub resume: bool,
    /// Keeps the work of a cancelled call for a later one, as if it had been killed.
    pub keep_when_cancelled: bool,
}

impl EncodeOptions {
    fn lower(self) -> Result<data::EncodeOptions> {
        Ok(data::EncodeOptions {
            chunk_size: integer("chunkSize", self.chunk_size)?,
            valid_fraction: self.valid_fraction,
            element: element(&self.token_dtype)?,
            threads: thread_count(self.threads)?.max(1),
            tokenizer_path: self.tokenizer_path.map(PathBuf::from),
            format: self.format.as_deref().map(format).transpose()?,
            text_field: self.text_field,
            document: match self.document.as_deref() {
                None => None,
                Some("file") => Some(Document::File),
                Some("line") => Some(Document::Line),
                Some("block") => Some(Document::Block),
                Some(other) => {
                    let message = format!("document is {other}; it must be file, line or block");
                    return Err(Error::argument(message));
                }
            },
            append_eot: self.append_eot,
            resume: self.resume,
            keep_when_cancelled: self.keep_when_cancelled,
        })
    }
}

/// The result of encoding.
#[napi(object)]
pub struct EncodeSummary {
    /// Number of tokens in all stores.
    pub tokens: f64,
    /// Bytes of the encoded text.
    pub bytes: f64,
    /// Bytes of invalid UTF-8 that became U+FFFD.
    pub replaced_bytes: f64,
    /// Bytes of text encoded by an earlier, killed call.
    pub resumed_bytes: f64,
    /// Folder of the training store.
    pub train: String,
    /// Folder of the validation store; absent if there is none.
    pub valid: Option<String>,
}

/// Encodes text files to a token store, or with a `validFraction` to two, in one streaming pass.
///
/// `out` is the folder that holds the stores and the tokenizer; if its name ends in `_chunks`, it
/// is the store itself. A call that fails leaves nothing behind, except as `keepWhenCancelled`
/// says. `monitor` counts bytes on disk.
#[napi(catch_unwind, ts_return_type = "Promise<EncodeSummary>")]
pub fn encode_files(
    files: Vec<String>,
    tokenizer: &Tokenizer,
    out: String,
    options: EncodeOptions,
    monitor: &Monitor,
) -> napi::Result<AsyncTask<Job<(), EncodeSummary>>> {
    let options = options.lower().map_err(to_napi)?;
    let (tokenizer, mut progress) = (Arc::clone(&tokenizer.inner), monitor.progress());
    Ok(spawn((), move |()| {
        let summary = data::encode_files(
            &paths(files),
            &tokenizer,
            Path::new(&out),
            &options,
            &mut progress,
        )?;
        let text = |path: PathBuf| path.to_string_lossy().into_owned();
        Ok(EncodeSummary {
            tokens: summary.tokens as f64,
            bytes: summary.bytes as f64,
            replaced_bytes: summary.replaced_bytes as f64,
            resumed_bytes: summary.resumed_bytes as f64,
            train: text(summary.train),
            valid: summary.valid.map(text),
        })
    }))
}

/// Options for merging or splitting stores.
#[napi(object, object_to_js = false)]
pub struct ReshapeOptions<'env> {
    /// Tokens per chunk file.
    pub chunk_size: Option<f64>,
    /// Integer type of the chunk files: `int32` or `uint16`.
    pub token_dtype: Option<String>,
    /// Tokenizer of the stores, saved next to the new ones.
    pub tokenizer: Option<ClassInstance<'env, Tokenizer>>,
    /// Path of the tokenizer, for a store without a copy next to it.
    pub tokenizer_path: Option<String>,
}

impl ReshapeOptions<'_> {
    fn lower(self) -> Result<data::reshape::ReshapeOptions> {
        Ok(data::reshape::ReshapeOptions {
            chunk_size: self.chunk_size.map(|size| integer("chunkSize", size)).transpose()?,
            element: self.token_dtype.as_deref().map(element).transpose()?,
            tokenizer: self.tokenizer.map(|tokenizer| Arc::clone(&tokenizer.inner)),
            tokenizer_path: self.tokenizer_path.map(PathBuf::from),
        })
    }
}

/// The stores that merging or splitting wrote, by their folders.
#[napi(object)]
pub struct Reshaped {
    /// The merged store, or the part before the split.
    pub train: String,
    pub train_tokens: f64,
    /// The part after the split; absent after merging.
    pub valid: Option<String>,
    pub valid_tokens: f64,
}

impl From<data::reshape::Reshaped> for Reshaped {
    fn from(stores: data::reshape::Reshaped) -> Self {
        let text = |path: PathBuf| path.to_string_lossy().into_owned();
        Self {
            train: text(stores.train),
            train_tokens: stores.train_tokens as f64,
            valid: stores.valid.map(text),
            valid_tokens: stores.valid_tokens as f64,
        }
    }
}

/// A long call that merges or splits stores.
type Reshaping = AsyncTask<Job<(), Reshaped>>;

/// Concatenates stores into a new one.
///
/// `out` is the folder that gets `train_chunks` and the tokenizer; if its name ends in `_chunks`,
/// it is the store itself. Fails with `ERR_INVALID_ARGUMENT` for stores of different tokenizers,
/// and `ERR_TOKEN_OUT_OF_RANGE` for an id that uint16 cannot hold; nothing is left behind.
/// `monitor` counts tokens.
#[napi(catch_unwind, ts_return_type = "Promise<Reshaped>")]
pub fn merge_stores(
    stores: Vec<ClassInstance<TokenStore>>,
    out: String,
    options: ReshapeOptions,
    monitor: &Monitor,
) -> napi::Result<Reshaping> {
    let options = options.lower().map_err(to_napi)?;
    let stores: Vec<_> = stores.iter().map(|store| Arc::clone(&store.inner)).collect();
    let mut progress = monitor.progress();
    Ok(spawn((), move |()| {
        data::reshape::merge(&stores, Path::new(&out), &options, &mut progress).map(Reshaped::from)
    }))
}

/// Splits a store in two: the tokens before `at` go to `train_chunks` of the folder `out`, the
/// others to its `valid_chunks`. Fails as `mergeStores` does, and with `ERR_INVALID_ARGUMENT` if
/// either part would be empty.
#[napi(catch_unwind, ts_return_type = "Promise<Reshaped>")]
pub fn split_store(
    store: &TokenStore,
    at: f64,
    out: String,
    options: ReshapeOptions,
    monitor: &Monitor,
) -> napi::Result<Reshaping> {
    let (options, at) = (options.lower().map_err(to_napi)?, integer("at", at).map_err(to_napi)?);
    let (store, mut progress) = (Arc::clone(&store.inner), monitor.progress());
    Ok(spawn((), move |()| {
        data::reshape::split(&store, at, Path::new(&out), &options, &mut progress)
            .map(Reshaped::from)
    }))
}
