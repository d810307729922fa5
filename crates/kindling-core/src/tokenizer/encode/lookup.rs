//! Looking up the ids of pre-tokens in the caches.
//!
//! A lookup waits for memory: the thread's cache (4 MiB) is mostly in L2, and the shared ones (76
//! MiB) fit in no cache of the processor. So pre-tokens are processed in batches of 32, and four
//! batches are in flight. Each step advances every one of them by one stage:
//!
//! ```text
//! step i: batch i      hash: pack and hash each pre-token, prefetch its entry
//!         batch i - 1  mark: find those the thread's cache lacks, prefetch their shared entries
//!         batch i - 2  probe: if another key has the shared entry, prefetch the rest of the bucket
//!         batch i - 3  copy: append the ids; merge what no cache has, and insert it
//! ```
//!
//! 1. By the time a stage reads an entry, the previous stage's prefetch has arrived.
//! 2. `mark` compares half of each key without a branch, since hits and misses are unpredictable. A
//!    wrong guess only costs a prefetch.
//! 3. `copy` writes a fixed number of ids per entry and then advances by the true count, so a hit
//!    needs no loop over its ids. Nearly all pre-tokens have at most `FEW_IDS`; for the others it
//!    writes `CACHED_IDS`.
//! 4. A shared hit is copied into the thread's cache and then read from there, so ids are copied in
//!    one place only.

use super::Encoder;
use super::cache::{CACHED_IDS, FEW_IDS, LongKey, PackedIds, SharedCaches, ThreadCache};
use super::scratch::Scratch;
use crate::Result;
use crate::tokenizer::pretokenize::PretokenKey;

/// Pre-tokens in a batch: one per bit of `Batch::missing`.
const BATCH: usize = u32::BITS as usize;
/// Batches in flight.
const STAGES: usize = 4;

/// Pre-tokens on their way through the stages.
#[derive(Clone, Copy)]
struct Batch<'a> {
    text: &'a [u8],
    /// Starts of the pre-tokens, and the end of the last one.
    bounds: &'a [usize],
    /// Keys and their hashes.
    keys: [(PretokenKey, u64); BATCH],
    /// Bit i is set if the thread's cache seems to lack pre-token i.
    missing: u32,
}

impl<'a> Batch<'a> {
    #[inline(always)]
    fn hash(&mut self, bounds: &'a [usize], cache: &ThreadCache) {
        self.bounds = bounds;
        for (pretoken, key) in bounds.windows(2).zip(&mut self.keys) {
            let new = PretokenKey::new(self.text, pretoken[0], pretoken[1]);
            *key = (new, new.hash());
            cache.prefetch(key.1);
        }
    }

    #[inline(always)]
    fn mark_missing(&mut self, cache: &ThreadCache, shared: &SharedCaches) {
        self.missing = 0;
        for (i, (key, hash)) in self.keys[..self.bounds.len() - 1].iter().enumerate() {
            self.missing |= u32::from(!cache.may_hold(*key, *hash)) << i;
        }
        self.for_each_missing(
            |short| shared.short.prefetch(short.1),
            |long| shared.long.prefetch(long),
        );
    }

    #[inline(always)]
    fn probe(&self, shared: &SharedCaches) {
        self.for_each_missing(
            |(key, hash)| shared.short.prefetch_rest(key, hash),
            |long| shared.long.prefetch_rest(long),
        );
    }

    #[inline(always)]
    fn for_each_missing(&self, short: impl Fn((PretokenKey, u64)), long: impl Fn(&LongKey)) {
        let mut missing = self.missing;
        while missing != 0 {
            let i = missing.trailing_zeros() as usize % BATCH;
            missing &= missing - 1;
            if self.keys[i].0.is_whole() {
                short(self.keys[i]);
            } else if let Some(key) = LongKey::new(&self.text[self.bounds[i]..self.bounds[i + 1]]) {
                long(&key);
            }
        }
    }
}

impl Encoder {
    /// Appends the ids of the pre-tokens between consecutive `starts`.
    pub(super) fn encode_pretokens(
        &self,
        text: &str,
        starts: &[usize],
        scratch: &mut Scratch,
        ids: &mut Vec<u32>,
    ) -> Result<()> {
        let shared = self.shared_caches.get().and_then(Option::as_ref);
        let count = starts.len().saturating_sub(1);
        let keys = [(PretokenKey::default(), 0); BATCH];
        let empty = Batch { text: text.as_bytes(), bounds: &[], keys, missing: 0 };
        let mut batches = [empty; STAGES];
        let bounds =
            |batch: usize| &starts[batch * BATCH..starts.len().min((batch + 1) * BATCH + 1)];
        for step in 0..count.div_ceil(BATCH) + STAGES - 1 {
            if step * BATCH < count {
                batches[step % STAGES].hash(bounds(step), &scratch.cache);
            }
            if let Some(shared) = shared {
                if let Some(batch) = step.checked_sub(1)
                    && batch * BATCH < count
                {
                    batches[batch % STAGES].mark_missing(&scratch.cache, shared);
                }
                if let Some(batch) = step.checked_sub(2)
                    && batch * BATCH < count
                {
                    batches[batch % STAGES].probe(shared);
                }
            }
            if let Some(batch) = step.checked_sub(STAGES - 1) {
                self.encode_batch(text, &batches[batch % STAGES], scratch, ids)?;
            }
        }
        Ok(())
    }

    /// Appends the ids of a batch, which is its last stage.
    #[inline(always)]
    fn encode_batch(
        &self,
        text: &str,
        batch: &Batch<'_>,
        scratch: &mut Scratch,
        ids: &mut Vec<u32>,
    ) -> Result<()> {
        let shared = self.shared_caches.get().and_then(Option::as_ref);
        let Batch { bounds, keys, .. } = batch;
        let keys = &keys[..bounds.len() - 1];
        let mut at = 0;
        loop {
            at = copy_cached(keys, at, &scratch.cache, ids);
            let Some(&(key, hash)) = keys.get(at) else { return Ok(()) };
            let whole = key.is_whole().then_some((key, hash));
            if let Some(found) = whole.and_then(|(key, hash)| shared?.short.get(key, hash)) {
                scratch.cache.insert(key, hash, found);
                continue;
            }
            self.encode_missing(&text[bounds[at]..bounds[at + 1]], whole, scratch, ids)?;
            at += 1;
        }
    }

    /// Appends the ids of a pre-token that neither short cache has, and caches them if they fit.
    ///
    /// `key` is the key and hash of the pre-token, if it fits in a key.
    fn encode_missing(
        &self,
        pretoken: &str,
        key: Option<(PretokenKey, u64)>,
        scratch: &mut Scratch,
        ids: &mut Vec<u32>,
    ) -> Result<()> {
        let shared = self.shared_caches.get().and_then(Option::as_ref);
        // A pre-token has at most one id per byte, so any shorter one fits in the short caches.
        let may_be_long = pretoken.len() > CACHED_IDS;
        let long = shared
            .filter(|_| may_be_long)
            .and_then(|shared| Some((&shared.long, LongKey::new(pretoken.as_bytes())?)));
        if long.as_ref().is_some_and(|(cache, key)| cache.append(key, ids)) {
            return Ok(());
        }
        if may_be_long && let Some(found) = scratch.long_cache.get(pretoken.as_bytes()) {
            ids.extend_from_slice(found);
            return Ok(());
        }
        if let Some(id) = self.whole_word(pretoken.as_bytes()) {
            scratch.symbols.clear();
            scratch.symbols.push(id);
        } else {
            self.check_bytes(pretoken)?;
            self.merge_bytes(pretoken.as_bytes(), &mut scratch.symbols, &mut scratch.merge);
        }
        let found = &scratch.symbols;
        ids.extend_from_slice(found);
        if let Some((key, hash)) = key
            && let Some(found) = PackedIds::new(found)
        {
            scratch.cache.insert(key, hash, found);
            if let Some(shared) = shared {
                shared.short.insert(key, hash, found);
            }
        } else if !long.is_some_and(|(cache, key)| cache.insert(&key, found)) {
            scratch.long_cache.insert(pretoken.as_bytes(), found);
        }
        Ok(())
    }
}

/// Appends the ids of pre-tokens from `at` up to the first that the cache lacks. Returns its index.
#[inline]
fn copy_cached(
    keys: &[(PretokenKey, u64)],
    mut at: usize,
    cache: &ThreadCache,
    ids: &mut Vec<u32>,
) -> usize {
    ids.reserve((keys.len() + 1) * CACHED_IDS);
    let out = ids.as_mut_ptr();
    let mut length = ids.len();
    while let Some(&(key, hash)) = keys.get(at)
        && let Some(found) = cache.get(key, hash)
    {
        let count = found.count();
        // SAFETY: `CACHED_IDS` elements were reserved for each key and for one more; each key adds
        // at most that many, so the widest write ends within the capacity.
        unsafe {
            let out = out.add(length);
            out.cast::<[u64; FEW_IDS / 2]>().write_unaligned(found.first_words());
            if count > FEW_IDS {
                out.cast::<[u32; CACHED_IDS]>().write_unaligned(found.ids());
            }
        }
        length += count;
        at += 1;
    }
    // SAFETY: all elements up to `length` were written, within the capacity.
    unsafe { ids.set_len(length) };
    at
}
