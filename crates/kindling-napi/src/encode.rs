//! Text files to token stores.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use kindling_core::data::{self, Document};
use kindling_core::{Error, Result};
use napi::bindgen_prelude::{AsyncTask, ClassInstance};

use crate::error::to_napi;
use crate::monitor::Monitor;
use crate::options::{element, format, integer, paths, size};
use crate::store::TokenStore;
use crate::task::{Job, spawn};
use crate::tokenizer::Tokenizer;

/// How text becomes a store.
#[napi(object)]
pub struct EncodeOptions {
    /// Tokens a chunk file.
    pub chunk_size: f64,
    /// Share of the tokens, from the end, that is for validation.
    pub valid_fraction: f64,
    /// `int32` or `uint16`.
    pub token_dtype: String,
    /// Threads that encode.
    pub threads: f64,
    /// Where the tokenizer can be opened.
    pub tokenizer_path: Option<String>,
    /// `text` or `jsonl`; told by the names if none.
    pub format: Option<String>,
    /// The field of JSON Lines that is the text.
    pub text_field: String,
    /// `file`, `line` or `block`; as the format is if none.
    pub document: Option<String>,
    /// End every document.
    pub append_eot: bool,
    /// Go on with what a killed run left.
    pub resume: bool,
    /// Leave what is done for a later run when cancelled.
    pub keep_when_cancelled: bool,
}

impl EncodeOptions {
    fn lower(self) -> Result<data::EncodeOptions> {
        Ok(data::EncodeOptions {
            chunk_size: integer("chunkSize", self.chunk_size)?,
            valid_fraction: self.valid_fraction,
            element: element(&self.token_dtype)?,
            threads: size("threads", self.threads)?.max(1),
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

/// What encoding gave.
#[napi(object)]
pub struct EncodeSummary {
    /// Tokens in all.
    pub tokens: f64,
    /// Bytes of the text they stand for.
    pub bytes: f64,
    /// Bytes of the files that were no UTF-8.
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

/// What stores out of stores are like.
#[napi(object, object_to_js = false)]
pub struct ReshapeOptions<'env> {
    /// Tokens a chunk file.
    pub chunk_size: Option<f64>,
    /// `int32` or `uint16`.
    pub token_dtype: Option<String>,
    /// The stores' tokenizer.
    pub tokenizer: Option<ClassInstance<'env, Tokenizer>>,
    /// Where it can be opened.
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

/// Stores out of stores.
#[napi(object)]
pub struct Reshaped {
    /// The store, or that of the training tokens.
    pub train: String,
    /// Its tokens.
    pub train_tokens: f64,
    /// The store of the validation tokens.
    pub valid: Option<String>,
    /// Its tokens.
    pub valid_tokens: f64,
}

impl From<data::reshape::Reshaped> for Reshaped {
    fn from(made: data::reshape::Reshaped) -> Self {
        let text = |path: PathBuf| path.to_string_lossy().into_owned();
        Self {
            train: text(made.train),
            train_tokens: made.train_tokens as f64,
            valid: made.valid.map(text),
            valid_tokens: made.valid_tokens as f64,
        }
    }
}

/// A long call that makes stores out of stores.
type Reshaping = AsyncTask<Job<(), Reshaped>>;

/// Writes the tokens of several stores to one.
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

/// Cuts a store in two at a token.
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
