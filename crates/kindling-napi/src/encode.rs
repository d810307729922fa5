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
    /// The share of the tokens, from the end, that go to the validation store.
    pub valid_fraction: f64,
    /// `int32` or `uint16`.
    pub token_dtype: String,
    /// The number of threads.
    pub threads: f64,
    /// The path of the tokenizer.
    pub tokenizer_path: Option<String>,
    /// `text`, `jsonl` or `parquet`; by default the names of the files decide.
    pub format: Option<String>,
    /// The field of JSON Lines, or column of Parquet, that holds the text.
    pub text_field: String,
    /// `file`, `line` or `block`; by default the format decides.
    pub document: Option<String>,
    /// Append `<|endoftext|>` to every document.
    pub append_eot: bool,
    /// Resume from what a killed run left.
    pub resume: bool,
    /// Leave what is done for a later run if cancelled.
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

/// The result of an encoding.
#[napi(object)]
pub struct EncodeSummary {
    /// The number of tokens in all stores.
    pub tokens: f64,
    /// Bytes of the text that the tokens encode.
    pub bytes: f64,
    /// Bytes of the files that were invalid UTF-8 and became U+FFFD.
    pub replaced_bytes: f64,
    /// Bytes of text that an earlier, killed run had encoded.
    pub resumed_bytes: f64,
    /// The store of the training tokens.
    pub train: String,
    /// The store of the validation tokens.
    pub valid: Option<String>,
}

/// Encodes text files to a token store.
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
    /// `int32` or `uint16`.
    pub token_dtype: Option<String>,
    /// The tokenizer of the stores.
    pub tokenizer: Option<ClassInstance<'env, Tokenizer>>,
    /// The path of the tokenizer.
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

/// The stores that merging or splitting wrote.
#[napi(object)]
pub struct Reshaped {
    /// The merged store, or the first part of a split one.
    pub train: String,
    pub train_tokens: f64,
    /// The second part of a split store.
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

/// Merges several stores into one.
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

/// Splits a store in two at a token.
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
