//! Merging several stores into one, and splitting one in two.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::destination::Destination;
use super::element::Element;
use super::metadata::Metadata;
use super::store_writer::{StoreWriter, check_chunk_size};
use super::token_store::TokenStore;
use crate::progress::Progress;
use crate::tokenizer::Tokenizer;
use crate::{Error, Result};

/// Tokens copied at a time.
const COPY: u64 = 1 << 18;
/// The folder within the temporary folder in which the stores are written.
const ROOT: &str = "made";

/// Options for merging or splitting stores.
#[derive(Debug, Clone, Default)]
pub struct ReshapeOptions {
    /// Tokens per chunk file; by default as in the first store.
    pub chunk_size: Option<u64>,
    /// int32 or uint16; by default uint16 if all stores have it.
    pub element: Option<Element>,
    /// The tokenizer of the stores. It is saved beside the new stores, unless the destination is a
    /// single store.
    pub tokenizer: Option<Arc<Tokenizer>>,
    /// The path of the tokenizer.
    pub tokenizer_path: Option<PathBuf>,
}

/// The new stores.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reshaped {
    /// The merged store, or the first part of a split one.
    pub train: PathBuf,
    pub train_tokens: u64,
    /// The second part of a split store.
    pub valid: Option<PathBuf>,
    pub valid_tokens: u64,
}

/// Writes the tokens of `stores`, one store after another, to `out`, a folder that gets
/// `train_chunks` and the tokenizer. If its name ends in `_chunks`, it is the store itself.
/// Progress counts tokens.
///
/// # Errors
/// Returns `ERR_INVALID_ARGUMENT` if there is no store or their tokenizers differ,
/// `ERR_TOKEN_OUT_OF_RANGE` for an id that uint16 cannot represent, `ERR_DISK_FULL`,
/// `ERR_NOT_WRITABLE`, and any error of `progress`. Nothing is left behind then.
pub fn merge(
    stores: &[Arc<TokenStore>],
    out: &Path,
    options: &ReshapeOptions,
    progress: &mut Progress<'_>,
) -> Result<Reshaped> {
    let parts: Vec<_> =
        stores.iter().map(|store| TokenRange { store, start: 0, end: store.len() }).collect();
    if parts.is_empty() {
        return Err(Error::argument("no stores to merge; name at least one"));
    }
    let destination = Destination::new(out)?;
    write(&destination, &parts, &[], options, progress)
}

/// Splits a store in two. Tokens before `at` go to `train_chunks` in the folder `out`, the others
/// to its `valid_chunks`.
///
/// # Errors
/// Returns `ERR_INVALID_ARGUMENT` if either part would be empty or the folder's name ends in
/// `_chunks`; otherwise as `merge`.
pub fn split(
    store: &Arc<TokenStore>,
    at: u64,
    out: &Path,
    options: &ReshapeOptions,
    progress: &mut Progress<'_>,
) -> Result<Reshaped> {
    if at == 0 || at >= store.len() {
        let message = format!("a split at token {at} of {} leaves one part empty", store.len());
        return Err(Error::argument(message));
    }
    let destination = Destination::new(out)?;
    destination.check_holds_two()?;
    let train = [TokenRange { store, start: 0, end: at }];
    let valid = [TokenRange { store, start: at, end: store.len() }];
    write(&destination, &train, &valid, options, progress)
}

/// The tokens `start..end` of a store.
struct TokenRange<'a> {
    store: &'a TokenStore,
    start: u64,
    end: u64,
}

fn tokens(parts: &[TokenRange<'_>]) -> u64 {
    parts.iter().map(|part| part.end - part.start).sum()
}

fn write(
    destination: &Destination<'_>,
    train: &[TokenRange<'_>],
    valid: &[TokenRange<'_>],
    options: &ReshapeOptions,
    progress: &mut Progress<'_>,
) -> Result<Reshaped> {
    check_tokenizers(train, options)?;
    destination.check_replaceable(options.tokenizer.as_deref())?;
    let first = train[0].store.metadata();
    let chunk_size = options.chunk_size.unwrap_or(first.chunk_size);
    check_chunk_size(chunk_size)?;
    let all_uint16 = train.iter().all(|part| part.store.metadata().dtype == Element::Uint16.name());
    let element =
        options.element.unwrap_or(if all_uint16 { Element::Uint16 } else { Element::Int32 });
    let (staged, _) = destination.stage(|_| false)?;
    let root = staged.path().join(ROOT);
    let total = tokens(train) + tokens(valid);
    let mut done = 0;
    for (folder, parts) in [(destination.train(&root), train), (Destination::valid(&root), valid)] {
        if parts.is_empty() {
            continue;
        }
        let mut writer = StoreWriter::create(&folder, chunk_size, element)?;
        let bytes = copy(parts, &mut writer, options, &mut |tokens| {
            done += tokens;
            progress(done, total)
        })?;
        writer.finish(|metadata| describe(metadata, bytes, parts, destination, options))?;
    }
    if let Some(tokenizer) = &options.tokenizer {
        destination.save_tokenizer(&root, tokenizer)?;
    }
    destination.install(staged, &root, false, || Ok(()))?;
    Ok(Reshaped {
        train: destination.train(destination.out()),
        train_tokens: tokens(train),
        valid: (!valid.is_empty()).then(|| Destination::valid(destination.out())),
        valid_tokens: tokens(valid),
    })
}

/// Returns an error if stores name different tokenizers, or one other than the given one.
fn check_tokenizers(parts: &[TokenRange<'_>], options: &ReshapeOptions) -> Result<()> {
    let hash_of = |part: &TokenRange<'_>| part.store.metadata().tokenizer_hash.clone();
    let mut known = options.tokenizer.as_ref().map(|tokenizer| tokenizer.hash());
    for part in parts {
        let Some(hash) = hash_of(part) else { continue };
        if *known.get_or_insert_with(|| hash.clone()) != hash {
            return Err(Error::argument(format!(
                "{} was encoded with another tokenizer; encode all texts with the same one",
                part.store.path().display()
            )));
        }
    }
    Ok(())
}

/// Copies `parts`. Returns the number of bytes of their text, if known.
fn copy(
    parts: &[TokenRange<'_>],
    writer: &mut StoreWriter,
    options: &ReshapeOptions,
    done: &mut dyn FnMut(u64) -> Result<()>,
) -> Result<Option<u64>> {
    let whole = |part: &TokenRange<'_>| part.end - part.start == part.store.len();
    let recorded =
        parts.iter().map(|part| part.store.metadata().bytes.filter(|_| whole(part))).sum();
    let tokenizer = options.tokenizer.as_deref().filter(|_| Option::<u64>::is_none(&recorded));
    let mut counted = 0;
    for part in parts {
        let mut start = part.start;
        while start < part.end {
            let end = part.end.min(start + COPY);
            let ids: Vec<u32> =
                part.store.load_by_range(start, end)?.into_iter().map(|id| id as u32).collect();
            if let Some(tokenizer) = tokenizer {
                for &id in &ids {
                    counted += tokenizer.token_bytes(id)?.len() as u64;
                }
            }
            writer.push(&ids)?;
            done(end - start)?;
            start = end;
        }
    }
    Ok(recorded.or_else(|| tokenizer.map(|_| counted)))
}

fn describe(
    metadata: &mut Metadata,
    bytes: Option<u64>,
    parts: &[TokenRange<'_>],
    destination: &Destination<'_>,
    options: &ReshapeOptions,
) {
    metadata.bytes = bytes;
    metadata.replaced_bytes = parts.iter().map(|part| part.store.metadata().replaced_bytes).sum();
    let hashes: Option<Vec<_>> =
        parts.iter().map(|part| part.store.metadata().tokenizer_hash.clone()).collect();
    metadata.tokenizer_hash = match &options.tokenizer {
        Some(tokenizer) => Some(tokenizer.hash()),
        None => hashes.and_then(|hashes| hashes.into_iter().next()),
    };
    if options.tokenizer.is_some() {
        metadata.tokenizer_path = destination.tokenizer_path(options.tokenizer_path.as_deref());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::progress::silent;
    use crate::test_support::{Folder, names};
    use crate::tokenizer::{Kind, Pattern, TrainOptions};

    /// Writes a store of `ids` that names the tokenizer `hash`.
    fn store(
        root: &Folder,
        name: &str,
        ids: std::ops::Range<u32>,
        hash: Option<&str>,
    ) -> Arc<TokenStore> {
        let folder = root.path().join(name);
        let mut writer = StoreWriter::create(&folder, 7, Element::Uint16).unwrap();
        writer.push(&ids.collect::<Vec<_>>()).unwrap();
        let describe = |metadata: &mut Metadata| {
            metadata.bytes = Some(metadata.length * 3);
            metadata.tokenizer_hash = hash.map(str::to_owned);
        };
        writer.finish(describe).unwrap();
        Arc::new(TokenStore::open(folder).unwrap())
    }

    fn all(path: &Path) -> Vec<i32> {
        let store = TokenStore::open(path).unwrap();
        assert!(store.verify(&mut silent).unwrap() > 0);
        store.load_by_range(0, store.len()).unwrap()
    }

    #[test]
    fn a_merged_store_holds_the_tokens_in_order() {
        let root = Folder::new();
        let stores = [store(&root, "a", 0..20, Some("h")), store(&root, "b", 100..130, Some("h"))];
        for (chunk_size, element) in [(None, None), (Some(11), Some(Element::Int32))] {
            let out = root.path().join("c_chunks");
            let options = ReshapeOptions { chunk_size, element, ..ReshapeOptions::default() };
            let made = merge(&stores, &out, &options, &mut silent).unwrap();
            assert_eq!((made.train_tokens, made.valid), (50, None));
            assert!(all(&out).into_iter().eq((0..20).chain(100..130)));
            let metadata = TokenStore::open(&out).unwrap().metadata().clone();
            assert_eq!((metadata.bytes, metadata.max_id), (Some(150), Some(129)));
            assert_eq!(metadata.tokenizer_hash.as_deref(), Some("h"));
            assert_eq!(metadata.chunk_size, chunk_size.unwrap_or(7));
            assert_eq!(metadata.dtype, element.unwrap_or(Element::Uint16).name());
        }
    }

    #[test]
    fn splitting_and_merging_restores_a_store() {
        let root = Folder::new();
        let corpus = root.path().join("corpus.txt");
        std::fs::write(&corpus, "the sea, the sea, the whale").unwrap();
        let chars = TrainOptions {
            vocab_size: 0,
            special_tokens: Vec::new(),
            kind: Kind::Chars,
            pattern: Pattern::Gpt2,
            threads: 1,
            min_frequency: 1,
            max_bytes: None,
        };
        let (tokenizer, _) = Tokenizer::train(&[corpus], &chars, &mut silent).unwrap();
        let hash = tokenizer.hash();
        let whole = store(&root, "whole_chunks", 0..9, Some(&hash));
        let out = root.path().join("halves");
        let options =
            ReshapeOptions { tokenizer: Some(Arc::new(tokenizer)), ..ReshapeOptions::default() };
        for at in [1, 4, 7, 8] {
            let made = split(&whole, at, &out, &options, &mut silent).unwrap();
            assert_eq!((made.train_tokens, made.valid_tokens), (at, 9 - at));
            assert_eq!(names(&out), ["tokenizer", "train_chunks", "valid_chunks"]);
            let halves = [made.train, made.valid.unwrap()]
                .map(|path| Arc::new(TokenStore::open(path).unwrap()));
            // Every character of the text has one byte.
            assert_eq!(halves.clone().map(|half| half.metadata().bytes.unwrap()), [at, 9 - at]);
            let again = root.path().join("again_chunks");
            merge(&halves, &again, &ReshapeOptions::default(), &mut silent).unwrap();
            assert_eq!(all(&again), all(whole.path()));
        }
    }

    #[test]
    fn errors_leave_nothing_behind() {
        let root = Folder::new();
        let (a, b) = (store(&root, "a", 0..20, Some("h")), store(&root, "b", 0..5, Some("other")));
        let before = names(root.path());
        let (out, options) = (root.path().join("out"), ReshapeOptions::default());
        let refused = |result: Result<Reshaped>| {
            assert_eq!(result.unwrap_err().code(), "ERR_INVALID_ARGUMENT");
        };
        refused(merge(&[], &out, &options, &mut silent));
        refused(merge(&[Arc::clone(&a), b], &out, &options, &mut silent));
        refused(split(&a, 0, &out, &options, &mut silent));
        refused(split(&a, 20, &out, &options, &mut silent));
        refused(split(&a, 5, &root.path().join("x_chunks"), &options, &mut silent));
        let ended = merge(&[a], &out, &options, &mut |_, _| Err(Error::Cancelled));
        assert_eq!(ended.unwrap_err().code(), "ERR_CANCELLED");
        assert_eq!(names(root.path()), before);
    }
}
