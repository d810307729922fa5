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
    /// Size of the vocabulary, special tokens and the 256 bytes included. Required for `bpe`;
    /// `chars` has one token per character.
    pub vocab_size: Option<f64>,
    /// Special tokens; they get the first ids and are never part of a merge.
    pub special_tokens: Vec<String>,
    /// `bpe` (byte-level BPE) or `chars` (one token per code point).
    pub r#type: String,
    /// Counting threads. The result does not depend on them.
    pub threads: f64,
    /// Splits text into pre-tokens, which merges do not cross: `gpt2`, `smollm`, `cl100k`,
    /// `llama3`, `qwen2` or a regular expression.
    pub pattern: String,
    /// Least number of occurrences of a pair that is merged.
    pub min_frequency: f64,
    /// Bytes to read at most, counted after decompression over all files.
    pub max_bytes: Option<f64>,
    /// `text`, `jsonl` or `parquet`; by default recognized by each file's name.
    pub format: Option<String>,
    /// The JSON Lines field or Parquet column that holds the text.
    pub text_field: String,
}

impl TokenizerOptions {
    /// Converts to the engine's options, the format of the files, and the text field.
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

/// The size of files in tokens and bytes.
#[napi(object)]
pub struct TokenCount {
    pub tokens: f64,
    pub bytes: f64,
    /// Bytes of invalid UTF-8, read as U+FFFD.
    pub replaced_bytes: f64,
}

/// An immutable tokenizer. The public class is in `src/tokenizer.ts`.
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
    /// Trains a tokenizer on text files. `monitor` counts the bytes read from disk, then `merging`
    /// the merges learned.
    ///
    /// Fails with `ERR_NOT_FOUND`, `ERR_EMPTY_CORPUS`, `ERR_INVALID_CORPUS`, or
    /// `ERR_INVALID_ARGUMENT` if the vocabulary is smaller than the bytes and special tokens.
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

    /// Reads a vocabulary and merges in the format of GPT-2's vocab.json and merges.txt. Special
    /// tokens that the vocabulary lacks are appended to it. Fails with `ERR_INVALID_TOKENIZER` if
    /// the files are damaged or disagree.
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

    /// Opens the folder of a saved tokenizer, or a Hugging Face tokenizer.json. Fails with
    /// `ERR_NOT_FOUND` or `ERR_INVALID_TOKENIZER`.
    #[napi(catch_unwind, ts_return_type = "Promise<Tokenizer>")]
    pub fn open(path: String) -> Call<Tokenizer> {
        spawn((), move |()| Ok(Self::new(tokenizer::Tokenizer::open(PathBuf::from(path))?)))
    }

    /// Writes vocab.json, merges.txt and tokenizer.json to `folder`, each atomically. Creates the
    /// folder if needed.
    #[napi(catch_unwind, ts_return_type = "Promise<void>")]
    pub fn save(&self, folder: String) -> Call<()> {
        let tokenizer = Arc::clone(&self.inner);
        spawn((), move |()| tokenizer.save(PathBuf::from(folder)))
    }

    /// Number of ids, special tokens included; every id is below it.
    #[napi(getter, catch_unwind)]
    pub fn vocab_size(&self) -> u32 {
        self.inner.vocab_size() as u32
    }

    /// Number of merges; 0 for a tokenizer of characters.
    #[napi(getter, catch_unwind)]
    pub fn num_merges(&self) -> u32 {
        self.inner.num_merges() as u32
    }

    /// Bytes of invalid UTF-8 in the training text, read as U+FFFD; 0 for a tokenizer that was
    /// opened.
    #[napi(getter, catch_unwind)]
    pub fn replaced_bytes(&self) -> f64 {
        self.replaced_bytes as f64
    }

    /// The special tokens and their ids, in the order given.
    #[napi(getter, catch_unwind)]
    pub fn special_tokens(&self) -> Vec<SpecialToken> {
        let tokens = self.inner.special_tokens().iter();
        tokens.map(|(token, id)| SpecialToken { token: token.clone(), id: *id }).collect()
    }

    /// SHA-256, in hexadecimal, of the vocabulary, merges, special tokens, pattern and rules.
    /// Tokenizers with equal hashes encode alike, apart from `template`.
    #[napi(getter, catch_unwind)]
    pub fn hash(&self) -> String {
        self.inner.hash()
    }

    /// Returns the ids of a text, between those of `template` if `addSpecialTokens`. Throws
    /// `ERR_UNKNOWN_CHARACTER` if the vocabulary lacks a character.
    #[napi(catch_unwind)]
    pub fn encode(&self, text: String, add_special_tokens: bool) -> napi::Result<Uint32Array> {
        let ids = if add_special_tokens {
            self.inner.encode_with_template(&text)
        } else {
            self.inner.encode(&text)
        };
        Ok(ids.map_err(to_napi)?.into())
    }

    /// The ids that encoding with `addSpecialTokens` puts before and after a text, as two arrays.
    #[napi(getter, catch_unwind)]
    pub fn template(&self) -> Vec<Vec<u32>> {
        let template = self.inner.template();
        vec![template.before.clone(), template.after.clone()]
    }

    /// Counts the tokens of text files by encoding them on `threads` threads. `monitor` counts
    /// bytes read from disk.
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

    /// Decodes ids to text. Invalid UTF-8 becomes U+FFFD. Throws `ERR_TOKEN_OUT_OF_RANGE`.
    #[napi(catch_unwind)]
    pub fn decode(&self, ids: Uint32Array) -> napi::Result<String> {
        self.inner.decode(&ids).map_err(to_napi)
    }

    /// Decodes ids to bytes, which need not be whole characters. Throws `ERR_TOKEN_OUT_OF_RANGE`.
    #[napi(catch_unwind)]
    pub fn decode_bytes(&self, ids: Uint32Array) -> napi::Result<Uint8Array> {
        Ok(self.inner.decode_bytes(&ids).map_err(to_napi)?.into())
    }

    /// Returns the id of a token by its text, or null.
    #[napi(catch_unwind)]
    pub fn token_id(&self, token: String) -> Option<u32> {
        self.inner.token_id(&token)
    }

    /// Returns the bytes of the token `id`, or null if the vocabulary has no such id.
    #[napi(catch_unwind)]
    pub fn token_bytes(&self, id: f64) -> Option<Uint8Array> {
        let id = u32::try_from(integer("id", id).ok()?).ok()?;
        self.inner.token_bytes(id).ok().map(|bytes| bytes.to_vec().into())
    }

    /// Creates an encoder for text that arrives in pieces.
    #[napi(catch_unwind)]
    pub fn stream_encoder(&self) -> StreamEncoder {
        let encoder = tokenizer::StreamEncoder::new(Arc::clone(&self.inner));
        let inner = Exclusive::new("the encoder", Stream { encoder, waiting: Vec::new() });
        StreamEncoder { inner, taken: AtomicUsize::new(0) }
    }
}

/// Expands the patterns among `names` (`data/*.txt`) to the files that match, sorted. The name of
/// an existing file is never a pattern. Fails with `ERR_NOT_FOUND` if a pattern matches nothing.
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
    /// Number of documents to return, or all if the file has fewer.
    pub sample: f64,
    pub seed: f64,
    /// `text`, `jsonl` or `parquet`; by default recognized by the file's name.
    pub format: Option<String>,
    /// The JSON Lines field or Parquet column that holds the text.
    pub text_field: String,
}

/// Returns documents of a file drawn at random, each equally likely, in the order of the file.
/// Documents of text end at `<|endoftext|>`. The sample is a function of the seed. `monitor` counts
/// bytes read from disk.
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

/// Encodes text that arrives in pieces, to the ids of the whole text.
#[napi]
pub struct StreamEncoder {
    inner: Arc<Exclusive<Stream>>,
    /// Bytes of text appended so far.
    taken: AtomicUsize,
}

/// Bytes of text between two garbage collections. Their ids take about as much memory.
const COLLECT_EVERY_BYTES: usize = 4 << 20;
/// Growth of external memory at which V8 starts to collect garbage.
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
    /// outside its heap, and it would let 64 MiB of that accumulate.
    fn collect_garbage(&self, env: Env, bytes: usize) -> napi::Result<()> {
        let before = self.taken.fetch_add(bytes, Ordering::Relaxed);
        if before / COLLECT_EVERY_BYTES != (before + bytes) / COLLECT_EVERY_BYTES {
            env.adjust_external_memory(V8_SOFT_LIMIT_BYTES)?;
            env.adjust_external_memory(-V8_SOFT_LIMIT_BYTES)?;
        }
        Ok(())
    }

    /// Appends a piece of text. Returns the number of bytes that wait for `encode`.
    #[napi(catch_unwind)]
    pub fn append(&self, env: Env, text: String) -> napi::Result<u32> {
        self.collect_garbage(env, text.len())?;
        let append = |stream: &mut Stream| {
            stream.waiting.extend_from_slice(text.as_bytes());
            Ok(stream.waiting.len() as u32)
        };
        self.inner.acquire().and_then(|guard| guard.with(append)).map_err(to_napi)
    }

    /// Encodes the text appended so far. Returns the ids that no later text can change.
    #[napi(catch_unwind, ts_return_type = "Promise<Uint32Array>")]
    pub fn encode(&self) -> napi::Result<Encoding> {
        self.call(false)
    }

    /// Ends the text and returns its last ids.
    #[napi(catch_unwind, ts_return_type = "Promise<Uint32Array>")]
    pub fn finish(&self) -> napi::Result<Encoding> {
        self.call(true)
    }
}
