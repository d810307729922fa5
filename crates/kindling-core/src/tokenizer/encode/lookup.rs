//! Pre-tokens to ids: from the thread's own cache, fetched ahead in batches, else from those that hold more, else by merging.

use super::cache::shared_long::LongKey;
use super::cache::{CACHED_IDS, FEW_IDS, Ids, Key, OwnCache};
use super::merge::MergeWork;
use super::scratch::{Scratch, SharedCaches};
use crate::tokenizer::Tokenizer;
use crate::{Error, Result};

/// Pre-tokens of a batch, whose entries are asked for together ahead of time.
const AHEAD: usize = u32::BITS as usize;

/// Pre-tokens whose ids are being looked up: `bounds` are where each begins and the last ends.
#[derive(Clone, Copy)]
struct Batch<'a> {
    text: &'a [u8],
    bounds: &'a [usize],
    /// Keys and their hashes.
    keys: [(Key, u64); AHEAD],
    /// A bit for each that the own cache lacks.
    missing: u32,
}

impl<'a> Batch<'a> {
    #[inline(always)]
    fn begin(&mut self, bounds: &'a [usize], cache: &OwnCache) {
        self.bounds = bounds;
        for (pretoken, key) in bounds.windows(2).zip(&mut self.keys) {
            let new = Key::new(self.text, pretoken[0], pretoken[1]);
            *key = (new, new.hash());
            cache.prefetch(key.1);
        }
    }

    #[inline(always)]
    fn find_missing(&mut self, cache: &OwnCache, shared: &SharedCaches) {
        self.missing = 0;
        // Without a branch, which nobody could foretell.
        for (i, (key, hash)) in self.keys[..self.bounds.len() - 1].iter().enumerate() {
            self.missing |= u32::from(!cache.may_hold(*key, *hash)) << i;
        }
        self.each_missing(
            |short| shared.short.prefetch(short.1),
            |long| shared.long.prefetch(long),
        );
    }

    #[inline(always)]
    fn look_further(&self, shared: &SharedCaches) {
        self.each_missing(
            |(key, hash)| shared.short.prefetch_next(key, hash),
            |long| shared.long.prefetch_next(long),
        );
    }

    #[inline(always)]
    fn each_missing(&self, short: impl Fn((Key, u64)), long: impl Fn(&LongKey)) {
        let mut missing = self.missing;
        while missing != 0 {
            let i = missing.trailing_zeros() as usize % AHEAD;
            missing &= missing - 1;
            if self.keys[i].0.is_whole() {
                short(self.keys[i]);
            } else if let Some(key) = LongKey::new(&self.text[self.bounds[i]..self.bounds[i + 1]]) {
                long(&key);
            }
        }
    }
}

impl Tokenizer {
    /// Ids of the pre-tokens between each two of `starts`.
    pub(in crate::tokenizer) fn encode_pretokens(
        &self,
        text: &str,
        starts: &[usize],
        scratch: &mut Scratch,
        ids: &mut Vec<u32>,
    ) -> Result<()> {
        let bytes = text.as_bytes();
        let shared = self.shared_caches.get().and_then(Option::as_ref);
        let count = starts.len().saturating_sub(1);
        let empty =
            Batch { text: bytes, bounds: &[], keys: [(Key::default(), 0); AHEAD], missing: 0 };
        let mut batches = [empty; 4];
        let bounds =
            |batch: usize| &starts[batch * AHEAD..starts.len().min((batch + 1) * AHEAD + 1)];
        // Four batches are on their way: the keys of one, which asks for entries of the own cache; the entries of another, which
        // asks the shared one for those that are missing; what came of a third, which asks for the places where they may be
        // instead; the ids of the fourth. By then the processor has fetched them.
        for step in 0..count.div_ceil(AHEAD) + 3 {
            if step * AHEAD < count {
                batches[step % 4].begin(bounds(step), &scratch.cache);
            }
            if let Some(shared) = shared {
                if let Some(batch) = step.checked_sub(1)
                    && batch * AHEAD < count
                {
                    batches[batch % 4].find_missing(&scratch.cache, shared);
                }
                if let Some(batch) = step.checked_sub(2)
                    && batch * AHEAD < count
                {
                    batches[batch % 4].look_further(shared);
                }
            }
            let Some(batch) = step.checked_sub(3) else { continue };
            let Batch { bounds, keys, .. } = &batches[batch % 4];
            let keys = &keys[..bounds.len() - 1];
            let mut at = 0;
            loop {
                at = copy_known(keys, at, &scratch.cache, ids);
                let Some(&(key, hash)) = keys.get(at) else { break };
                let whole = key.is_whole().then_some((key, hash));
                if let Some(found) = whole.and_then(|(key, hash)| shared?.short.get(key, hash)) {
                    // From where it is copied next.
                    scratch.cache.insert(key, hash, found);
                    continue;
                }
                self.encode_missing(&text[bounds[at]..bounds[at + 1]], whole, scratch, ids)?;
                at += 1;
            }
        }
        Ok(())
    }

    /// Appends the ids of a pre-token that the own cache and the shared one of short ones lack, and puts it there if it can be;
    /// `key` is that of a short one.
    fn encode_missing(
        &self,
        pretoken: &str,
        key: Option<(Key, u64)>,
        scratch: &mut Scratch,
        ids: &mut Vec<u32>,
    ) -> Result<()> {
        let shared = self.shared_caches.get().and_then(Option::as_ref);
        // What has few bytes has few ids, and is in the other caches.
        let may_be_long = pretoken.len() > CACHED_IDS;
        let long = shared
            .filter(|_| may_be_long)
            .and_then(|shared| Some((&shared.long, LongKey::new(pretoken.as_bytes())?)));
        if long.as_ref().is_some_and(|(cache, key)| cache.append(key, ids)) {
            return Ok(());
        }
        if may_be_long && let Some(found) = scratch.long.get(pretoken.as_bytes()) {
            ids.extend_from_slice(found);
            return Ok(());
        }
        self.encode_pretoken(pretoken, scratch)?;
        let found = &scratch.symbols;
        ids.extend_from_slice(found);
        if let Some((key, hash)) = key
            && let Some(found) = Ids::new(found)
        {
            scratch.cache.insert(key, hash, found);
            if let Some(shared) = shared {
                shared.short.insert(key, hash, found);
            }
        } else if !long.is_some_and(|(cache, key)| cache.insert(&key, found)) {
            scratch.long.insert(pretoken.as_bytes(), found);
        }
        Ok(())
    }

    /// Leaves the ids of one pre-token in `scratch.symbols`.
    fn encode_pretoken(&self, pretoken: &str, scratch: &mut Scratch) -> Result<()> {
        self.check_bytes(pretoken)?;
        self.merge_bytes(pretoken.as_bytes(), &mut scratch.symbols, &mut scratch.merge);
        Ok(())
    }

    /// Leaves what `bytes`, of which the vocabulary has each, merge to in `symbols`.
    pub(super) fn merge_bytes(&self, bytes: &[u8], symbols: &mut Vec<u32>, work: &mut MergeWork) {
        symbols.clear();
        symbols.extend(bytes.iter().map(|&byte| self.byte_ids[usize::from(byte)]));
        self.merge_table.merge(bytes, symbols, work);
    }

    /// Refuses text with a byte that the vocabulary lacks.
    pub(super) fn check_bytes(&self, text: &str) -> Result<()> {
        if !self.lacks_bytes {
            return Ok(());
        }
        let lacks = |&c: &char| {
            c.encode_utf8(&mut [0; 4])
                .bytes()
                .any(|byte| self.byte_ids[usize::from(byte)] == u32::MAX)
        };
        match text.chars().find(lacks) {
            Some(character) => Err(Error::UnknownCharacter { character }),
            None => Ok(()),
        }
    }
}

/// Appends the ids of pre-tokens from `at` on, up to the first that the cache lacks; gives the place of that one.
#[inline]
fn copy_known(keys: &[(Key, u64)], mut at: usize, cache: &OwnCache, ids: &mut Vec<u32>) -> usize {
    ids.reserve((keys.len() + 1) * CACHED_IDS);
    let out = ids.as_mut_ptr();
    let mut length = ids.len();
    while let Some(&(key, hash)) = keys.get(at)
        && let Some(found) = cache.get(key, hash)
    {
        let count = found.count();
        // SAFETY: room for `CACHED_IDS` ids of each of `keys` was reserved, and each adds at most as many.
        unsafe {
            let out = out.add(length);
            out.cast::<[u64; FEW_IDS / 2]>().write_unaligned(found.first());
            if count > FEW_IDS {
                out.cast::<[u32; CACHED_IDS]>().write_unaligned(found.get());
            }
        }
        length += count;
        at += 1;
    }
    // SAFETY: so many have been written, within the capacity.
    unsafe { ids.set_len(length) };
    at
}
