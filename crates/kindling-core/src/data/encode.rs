//! Text files to token stores in one streaming pass, split into training and validation tokens.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::destination::Destination;
use super::metadata::Metadata;
use super::store_writer::{StoreWriter, check_chunk_size};
use super::token_store::TokenStore;
use crate::progress::Progress;
use crate::tokenizer::{StreamEncoder, Tokenizer};
use crate::{Error, Result};

/// Bytes read at a time: enough for several threads to share.
const BLOCK: usize = 1 << 21;
/// Tokens copied at a time into the validation store.
const COPY: u64 = 1 << 18;

/// How text becomes a store.
#[derive(Debug, Clone)]
pub struct EncodeOptions {
    /// Tokens a chunk file.
    pub chunk_size: u64,
    /// Share of the tokens, from the end, that is for validation: from 0 to below 1.
    pub valid_fraction: f64,
    /// Threads that encode; the tokens do not depend on it.
    pub threads: usize,
    /// Where the tokenizer can be opened, for a store without one beside it.
    pub tokenizer_path: Option<PathBuf>,
}

/// What encoding gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncodeSummary {
    /// Tokens in all.
    pub tokens: u64,
    /// Bytes of the text that was encoded.
    pub bytes: u64,
    /// Bytes of the files that were no UTF-8 and became U+FFFD.
    pub replaced_bytes: u64,
    /// The store of the training tokens.
    pub train: PathBuf,
    /// The store of the validation tokens.
    pub valid: Option<PathBuf>,
}

/// Encodes `files` one after the other. `out` gets `tokenizer`, `train_chunks` and, with a valid fraction,
/// `valid_chunks`; a name that ends in `_chunks` is the store itself. Progress counts bytes of the files.
///
/// # Errors
/// `ERR_NOT_FOUND`, `ERR_EMPTY_CORPUS`, `ERR_INVALID_ARGUMENT`, `ERR_DISK_FULL`, `ERR_NOT_WRITABLE`, what `progress`
/// returns; nothing is left behind, and a store that was there is as it was.
pub fn encode_files(
    files: &[PathBuf],
    tokenizer: &Arc<Tokenizer>,
    out: &Path,
    options: &EncodeOptions,
    progress: &mut Progress<'_>,
) -> Result<EncodeSummary> {
    let EncodeOptions { chunk_size, valid_fraction, .. } = *options;
    check_chunk_size(chunk_size)?;
    if !(0.0..1.0).contains(&valid_fraction) {
        let message = format!("valid_fraction is {valid_fraction}; it must be at least 0 and below 1");
        return Err(Error::argument(message));
    }
    let total = size_of_files(files)?;
    let destination = Destination::new(out)?;
    if destination.is_store() && valid_fraction > 0.0 {
        return Err(Error::argument(format!(
            "{} is one store; give a folder whose name does not end in _chunks for a valid_fraction",
            out.display()
        )));
    }
    destination.check_replaceable(tokenizer)?;
    let lengths = token_lengths(tokenizer)?;
    let staged = destination.stage()?;
    let mut train = StoreWriter::create(&destination.train(staged.path()), chunk_size)?;
    let text = encode_text(files, total, tokenizer, options.threads, &lengths, &mut train, progress)?;
    let tokens = train.len();
    if tokens == 0 {
        return Err(Error::EmptyCorpus { path: files[0].clone() });
    }
    let describe = |bytes: u64| {
        let (text, tokenizer_path) = (&text, destination.tokenizer_path(options));
        move |metadata: &mut Metadata| {
            metadata.bytes = Some(bytes);
            metadata.replaced_bytes = text.replaced_bytes;
            metadata.tokenizer_hash = Some(tokenizer.hash());
            metadata.tokenizer_path = tokenizer_path;
        }
    };
    let mut train_bytes = text.bytes;
    if valid_fraction > 0.0 {
        let kept = (tokens as f64 * (1.0 - valid_fraction)).floor() as u64;
        if kept == 0 {
            let message = format!("valid_fraction {valid_fraction} leaves no training token of {tokens}");
            return Err(Error::argument(message));
        }
        let mut valid = StoreWriter::create(&Destination::valid(staged.path()), chunk_size)?;
        let valid_bytes = move_tail(&mut train, kept, &mut valid, &lengths, progress, total)?;
        train_bytes -= valid_bytes;
        valid.finish(describe(valid_bytes))?;
    }
    train.finish(describe(train_bytes))?;
    destination.save_tokenizer(staged.path(), tokenizer)?;
    destination.commit(staged)?;
    let valid = (valid_fraction > 0.0).then(|| Destination::valid(out));
    let EncodedText { bytes, replaced_bytes } = text;
    Ok(EncodeSummary { tokens, bytes, replaced_bytes, train: destination.train(out), valid })
}

fn size_of_files(files: &[PathBuf]) -> Result<u64> {
    if files.is_empty() {
        return Err(Error::argument("no file to encode; name at least one"));
    }
    let mut total = 0;
    for path in files {
        let status = std::fs::metadata(path).map_err(|error| cannot_read(path, error))?;
        if status.is_dir() {
            return Err(Error::argument(format!("{} is a folder; name the files in it", path.display())));
        }
        total += status.len();
    }
    Ok(total)
}

fn cannot_read(path: &Path, error: std::io::Error) -> Error {
    if error.kind() == std::io::ErrorKind::NotFound {
        return Error::NotFound { what: "corpus", path: path.to_path_buf() };
    }
    Error::io("cannot read", path, error)
}

/// What the text was.
struct EncodedText {
    bytes: u64,
    replaced_bytes: u64,
}

fn encode_text(
    files: &[PathBuf],
    total: u64,
    tokenizer: &Arc<Tokenizer>,
    threads: usize,
    lengths: &[u64],
    writer: &mut StoreWriter,
    progress: &mut Progress<'_>,
) -> Result<EncodedText> {
    let mut done = 0;
    let mut text = EncodedText { bytes: 0, replaced_bytes: 0 };
    let (mut block, mut ids) = (vec![0; BLOCK], Vec::new());
    progress(0, total)?;
    for path in files {
        let mut file = File::open(path).map_err(|error| cannot_read(path, error))?;
        // No token crosses from one file into the next.
        let mut encoder = StreamEncoder::new(Arc::clone(tokenizer), threads);
        loop {
            let length = read_block(&mut file, &mut block).map_err(|error| cannot_read(path, error))?;
            encoder.push(&block[..length], &mut ids)?;
            if length < BLOCK {
                encoder.finish(&mut ids)?;
            }
            text.bytes += bytes_of(&ids, lengths);
            writer.push(&ids)?;
            ids.clear();
            done += length as u64;
            progress(done, total.max(done))?;
            if length < BLOCK {
                break;
            }
        }
        text.replaced_bytes += encoder.replaced_bytes();
    }
    Ok(text)
}

/// Fills `block` unless the file ends first.
fn read_block(file: &mut File, block: &mut [u8]) -> std::io::Result<usize> {
    let mut filled = 0;
    while filled < block.len() {
        match file.read(&mut block[filled..]) {
            Ok(0) => break,
            Ok(length) => filled += length,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// Bytes of the text of each token.
fn token_lengths(tokenizer: &Tokenizer) -> Result<Vec<u64>> {
    (0..tokenizer.vocab_size() as u32).map(|id| Ok(tokenizer.token_bytes(id)?.len() as u64)).collect()
}

fn bytes_of(ids: &[u32], lengths: &[u64]) -> u64 {
    ids.iter().map(|&id| lengths[id as usize]).sum()
}

/// Moves the tokens of `train` from `kept` on to `valid`; gives the bytes of their text.
fn move_tail(
    train: &mut StoreWriter,
    kept: u64,
    valid: &mut StoreWriter,
    lengths: &[u64],
    progress: &mut Progress<'_>,
    total: u64,
) -> Result<u64> {
    train.end();
    let store = TokenStore::open(train.folder())?;
    let mut bytes = 0;
    let mut start = kept;
    while start < store.len() {
        let end = store.len().min(start + COPY);
        let ids: Vec<u32> = store.load_by_range(start, end)?.into_iter().map(|id| id as u32).collect();
        bytes += bytes_of(&ids, lengths);
        valid.push(&ids)?;
        progress(total, total)?;
        start = end;
    }
    drop(store);
    train.cut(kept)?;
    Ok(bytes)
}
