//! Binding of the tokenizer; `src/tokenizer.ts` is the public class.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use kindling_core::corpus::{self, Corpus, Format};
use kindling_core::tokenizer::{self, Kind, Pattern, TrainOptions};
use kindling_core::{Error, Result};
use napi::Env;
use napi::bindgen_prelude::{AsyncTask, Uint8Array, Uint32Array};

use crate::error::to_napi;
use crate::exclusive::{Exclusive, Guard};
use crate::monitor::Monitor;
use crate::options::{format, integer, paths, size, thread_count};
use crate::task::{Job, spawn};

/// Options for training a tokenizer.
#[napi(object)]
pub struct TokenizerOptions {
    /// Size of the vocabulary; omitted for characters.
    pub vocab_size: Option<f64>,
    /// Special tokens, which get the first ids.
    pub special_tokens: Vec<String>,
    /// `bpe` or `chars`.
    pub r#type: String,
    pub threads: f64,
    /// `gpt2`, `smollm`, `cl100k`, `llama3`, `qwen2` or a regular expression.
    pub pattern: String,
    /// Pairs that occur less often are not merged.
    pub min_frequency: f64,
    /// Most bytes to read.
    pub max_bytes: Option<f64>,
    /// `text`, `jsonl` or `parquet`; by default recognized by the names of the files.
    pub format: Option<String>,
    /// Field of JSON Lines, or column of Parquet, that holds the text.
    pub text_field: String,
}

impl TokenizerOptions {
    /// Converts to the engine's options, the format of the files, and the field of JSON Lines.
    fn lower(self) -> Result<(TrainOptions, Option<Format>, String)> {
        let kind = match self.r#type.as_str() {
            "bpe" => Kind::Bpe,
            "chars" => Kind::Chars,
            other => {
                return Err(Error::argument(format!("type is {other}; pass bpe or chars")));
            }
        };
        let vocab_size = match (self.vocab_size, kind) {
            (Some(vocab_size), _) => size("vocabSize", vocab_size)?,
            (None, Kind::Chars) => 0,
            (None, Kind::Bpe) => {
                return Err(Error::argument("a bpe tokenizer needs vocabSize; pass it"));
            }
        };
        let threads = thread_count(self.threads)?.max(1);
        let format = self.format.as_deref().map(format).transpose()?;
        let options = TrainOptions {
            vocab_size,
            special_tokens: self.special_tokens,
            kind,
            pattern: Pattern::new(&self.pattern)?,
            threads,
            min_frequency: integer("minFrequency", self.min_frequency)?,
            max_bytes: self.max_bytes.map(|bytes| integer("maxBytes", bytes)).transpose()?,
        };
        Ok((options, format, self.text_field))
    }
}

/// A special token and its id.
#[napi(object)]
pub struct SpecialToken {
    pub token: String,
    pub id: u32,
}

/// Numbers of tokens and bytes in files.
#[napi(object)]
pub struct TokenCount {
    pub tokens: f64,
    pub bytes: f64,
    /// Number of bytes of invalid UTF-8.
    pub replaced_bytes: f64,
}

/// A tokenizer.
#[napi]
pub struct Tokenizer {
    pub(crate) inner: Arc<tokenizer::Tokenizer>,
    replaced_bytes: u64,
}

impl Tokenizer {
    pub(crate) fn new(inner: tokenizer::Tokenizer) -> Self {
        Self { inner: Arc::new(inner), replaced_bytes: 0 }
    }
}

/// A long call that locks nothing.
type Call<T> = AsyncTask<Job<(), T>>;

#[napi]
impl Tokenizer {
    /// Trains on text files. `monitor` reports the reading, then `merging` the merges.
    #[napi(catch_unwind, ts_return_type = "Promise<Tokenizer>")]
    pub fn train(
        files: Vec<String>,
        options: TokenizerOptions,
        monitor: &Monitor,
        merging: &Monitor,
    ) -> napi::Result<Call<Tokenizer>> {
        let (options, format, text_field) = options.lower().map_err(to_napi)?;
        let (files, mut reading, mut merging) =
            (paths(files), monitor.progress(), merging.progress());
        Ok(spawn((), move |()| {
            let corpus = Corpus::find(&files, format, &text_field)?;
            let (trained, summary) =
                tokenizer::Tokenizer::train_on(&corpus, &options, &mut reading, &mut merging)?;
            Ok(Self { inner: Arc::new(trained), replaced_bytes: summary.replaced_bytes })
        }))
    }

    /// Reads GPT-2's vocab.json and merges.txt.
    #[napi(catch_unwind, ts_return_type = "Promise<Tokenizer>")]
    pub fn from_files(
        vocab: String,
        merges: String,
        special_tokens: Vec<String>,
    ) -> Call<Tokenizer> {
        spawn((), move |()| {
            let (vocab, merges) = (PathBuf::from(vocab), PathBuf::from(merges));
            Ok(Self::new(tokenizer::Tokenizer::from_files(&vocab, &merges, &special_tokens)?))
        })
    }

    /// Opens a saved folder or a tokenizer.json.
    #[napi(catch_unwind, ts_return_type = "Promise<Tokenizer>")]
    pub fn open(path: String) -> Call<Tokenizer> {
        spawn((), move |()| Ok(Self::new(tokenizer::Tokenizer::open(PathBuf::from(path))?)))
    }

    /// Writes vocab.json, merges.txt and tokenizer.json to `folder`.
    #[napi(catch_unwind, ts_return_type = "Promise<void>")]
    pub fn save(&self, folder: String) -> Call<()> {
        let tokenizer = Arc::clone(&self.inner);
        spawn((), move |()| tokenizer.save(PathBuf::from(folder)))
    }

    /// Number of tokens, special ones included.
    #[napi(getter, catch_unwind)]
    pub fn vocab_size(&self) -> u32 {
        self.inner.vocab_size() as u32
    }

    /// Number of merges.
    #[napi(getter, catch_unwind)]
    pub fn num_merges(&self) -> u32 {
        self.inner.num_merges() as u32
    }

    /// Number of bytes of invalid UTF-8 in the text it was trained on; 0 if it was not trained in
    /// this process.
    #[napi(getter, catch_unwind)]
    pub fn replaced_bytes(&self) -> f64 {
        self.replaced_bytes as f64
    }

    /// Special tokens in the order given.
    #[napi(getter, catch_unwind)]
    pub fn special_tokens(&self) -> Vec<SpecialToken> {
        let tokens = self.inner.special_tokens().iter();
        tokens.map(|(token, id)| SpecialToken { token: token.clone(), id: *id }).collect()
    }

    /// SHA-256 of its contents, in hexadecimal.
    #[napi(getter, catch_unwind)]
    pub fn hash(&self) -> String {
        self.inner.hash()
    }

    /// Returns the ids of a text, with those of the template around them if `add_special_tokens`.
    #[napi(catch_unwind)]
    pub fn encode(&self, text: String, add_special_tokens: bool) -> napi::Result<Uint32Array> {
        let ids = if add_special_tokens {
            self.inner.encode_with_template(&text)
        } else {
            self.inner.encode(&text)
        };
        Ok(ids.map_err(to_napi)?.into())
    }

    /// Ids that encoding with special tokens puts before and after a text.
    #[napi(getter, catch_unwind)]
    pub fn template(&self) -> Vec<Vec<u32>> {
        let template = self.inner.template();
        vec![template.before.clone(), template.after.clone()]
    }

    /// Encodes files on several threads and counts their tokens.
    #[napi(catch_unwind, ts_return_type = "Promise<TokenCount>")]
    pub fn count_tokens(
        &self,
        files: Vec<String>,
        threads: f64,
        monitor: &Monitor,
    ) -> napi::Result<Call<TokenCount>> {
        let threads = thread_count(threads).map_err(to_napi)?.max(1);
        let (tokenizer, files, mut progress) =
            (Arc::clone(&self.inner), paths(files), monitor.progress());
        Ok(spawn((), move |()| {
            let (tokens, summary) = tokenizer.count_tokens(&files, threads, &mut progress)?;
            let (bytes, replaced_bytes) = (summary.bytes as f64, summary.replaced_bytes as f64);
            Ok(TokenCount { tokens: tokens as f64, bytes, replaced_bytes })
        }))
    }

    /// Returns the text of ids.
    #[napi(catch_unwind)]
    pub fn decode(&self, ids: Uint32Array) -> napi::Result<String> {
        self.inner.decode(&ids).map_err(to_napi)
    }

    /// Returns the bytes of ids.
    #[napi(catch_unwind)]
    pub fn decode_bytes(&self, ids: Uint32Array) -> napi::Result<Uint8Array> {
        Ok(self.inner.decode_bytes(&ids).map_err(to_napi)?.into())
    }

    /// Returns the id of a token.
    #[napi(catch_unwind)]
    pub fn token_id(&self, token: String) -> Option<u32> {
        self.inner.token_id(&token)
    }

    /// Returns the bytes of the token with this id.
    #[napi(catch_unwind)]
    pub fn token_bytes(&self, id: f64) -> Option<Uint8Array> {
        let id = u32::try_from(integer("id", id).ok()?).ok()?;
        self.inner.token_bytes(id).ok().map(|bytes| bytes.to_vec().into())
    }

    /// Creates an encoder of text that arrives in pieces.
    #[napi(catch_unwind)]
    pub fn stream_encoder(&self) -> StreamEncoder {
        let encoder = tokenizer::StreamEncoder::new(Arc::clone(&self.inner));
        let inner = Exclusive::new("the encoder", Stream { encoder, waiting: Vec::new() });
        StreamEncoder { inner, taken: AtomicUsize::new(0) }
    }
}

/// Returns the names of the files that match names and patterns.
#[napi(catch_unwind, ts_return_type = "Promise<Array<string>>")]
pub fn expand_files(names: Vec<String>) -> Call<Vec<String>> {
    spawn((), move |()| {
        let found = corpus::expand_all(&paths(names))?;
        Ok(found.into_iter().map(|path| path.to_string_lossy().into_owned()).collect())
    })
}

/// Options for sampling documents.
#[napi(object)]
pub struct SampleOptions {
    /// Most documents to return.
    pub sample: f64,
    pub seed: f64,
    /// `text`, `jsonl` or `parquet`; by default recognized by the name of the file.
    pub format: Option<String>,
    /// Field of JSON Lines, or column of Parquet, that holds the text.
    pub text_field: String,
}

/// Returns a random sample of the documents of a file.
#[napi(catch_unwind, ts_return_type = "Promise<Array<string>>")]
pub fn sample_documents(
    file: String,
    options: SampleOptions,
    monitor: &Monitor,
) -> napi::Result<Call<Vec<String>>> {
    let sample = size("sample", options.sample).map_err(to_napi)?;
    let seed = integer("seed", options.seed).map_err(to_napi)?;
    let format = options.format.as_deref().map(format).transpose().map_err(to_napi)?;
    let mut progress = monitor.progress();
    Ok(spawn((), move |()| {
        let corpus = Corpus::find(&paths(vec![file]), format, &options.text_field)?;
        corpus::sample_documents(&corpus, tokenizer::END_OF_TEXT, sample, seed, &mut progress)
    }))
}

/// An encoder and the text it has not encoded yet.
pub struct Stream {
    encoder: tokenizer::StreamEncoder,
    waiting: Vec<u8>,
}

/// Encodes text that arrives in pieces.
#[napi]
pub struct StreamEncoder {
    inner: Arc<Exclusive<Stream>>,
    /// Bytes of text appended so far.
    taken: AtomicUsize,
}

/// Bytes of text between two garbage collections; their ids take about as much memory.
const COLLECT_EVERY_BYTES: usize = 4 << 20;
/// Growth of external memory at which V8 starts a garbage collection.
const V8_SOFT_LIMIT_BYTES: i64 = 64 << 20;

/// A long call on an encoder.
type Encoding = AsyncTask<Job<Guard<Stream>, Uint32Array>>;

#[napi]
impl StreamEncoder {
    fn call(&self, end: bool) -> napi::Result<Encoding> {
        let guard = self.inner.acquire().map_err(to_napi)?;
        Ok(spawn(guard, move |guard| {
            guard.with(|stream| {
                let mut ids = Vec::new();
                stream.encoder.push(&stream.waiting, &mut ids)?;
                stream.waiting.clear();
                if end {
                    stream.encoder.finish(&mut ids)?;
                }
                Ok(ids.into())
            })
        }))
    }

    /// Makes V8 collect garbage every few MiB of text. The ids of earlier blocks are garbage
    /// outside V8's heap, of which it would let 64 MiB accumulate.
    fn collect_garbage(&self, env: Env, bytes: usize) -> napi::Result<()> {
        let before = self.taken.fetch_add(bytes, Ordering::Relaxed);
        if before / COLLECT_EVERY_BYTES != (before + bytes) / COLLECT_EVERY_BYTES {
            env.adjust_external_memory(V8_SOFT_LIMIT_BYTES)?;
            env.adjust_external_memory(-V8_SOFT_LIMIT_BYTES)?;
        }
        Ok(())
    }

    /// Appends a piece; returns the number of bytes that are not encoded yet.
    #[napi(catch_unwind)]
    pub fn append(&self, env: Env, text: String) -> napi::Result<u32> {
        self.collect_garbage(env, text.len())?;
        let append = |stream: &mut Stream| {
            stream.waiting.extend_from_slice(text.as_bytes());
            Ok(stream.waiting.len() as u32)
        };
        self.inner.acquire().and_then(|guard| guard.with(append)).map_err(to_napi)
    }

    /// Encodes the appended text; returns the ids that no later text can change.
    #[napi(catch_unwind, ts_return_type = "Promise<Uint32Array>")]
    pub fn encode(&self) -> napi::Result<Encoding> {
        self.call(false)
    }

    /// Ends the text; returns its last ids.
    #[napi(catch_unwind, ts_return_type = "Promise<Uint32Array>")]
    pub fn finish(&self) -> napi::Result<Encoding> {
        self.call(true)
    }
}
