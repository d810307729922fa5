//! The shared cache of short pre-tokens: buckets of four write-once slots.
//!
//! The hash also decides which slot of its bucket an entry tries first (`home`), so that the one
//! cache line that is prefetched first is usually the one that is needed.

use super::huge_page_table::SharedHugePageTable;
use super::packed_ids::{ID_WORDS, PackedIds};
use super::write_once::{FREE, WriteOnceSlot};
use crate::simd::prefetch;
use crate::tokenizer::pretokenize::PretokenKey;

/// Binary logarithm of the number of buckets, which take 64 MiB.
const BITS: u32 = 18;
const BUCKET: usize = 4;

/// One cache line. The tag is the key's high word and the first word is its low word; the ids
/// follow.
type Slot = WriteOnceSlot<{ 1 + ID_WORDS }>;

const _: () = assert!(size_of::<Slot>() == 64);

/// The shared cache of short pre-tokens.
#[derive(Debug)]
pub struct SharedCache(SharedHugePageTable<[Slot; BUCKET], BITS>);

/// Returns the index of the slot that a hash tries first in its bucket.
#[inline(always)]
fn home(hash: u64) -> usize {
    (hash >> (64 - BITS - BUCKET.trailing_zeros())) as usize % BUCKET
}

/// Returns whether `slot` holds `key`, given its tag.
#[inline(always)]
fn holds(slot: &Slot, tag: u64, key: PretokenKey) -> bool {
    tag == key.high && slot.word(0) == key.low
}

impl SharedCache {
    /// Creates an empty cache; returns `None` if there is not enough memory.
    pub fn new() -> Option<Self> {
        SharedHugePageTable::new().map(Self)
    }

    /// Returns the slots for `hash` in the order in which they are filled.
    #[inline(always)]
    fn slots(&self, hash: u64) -> impl Iterator<Item = &Slot> {
        let (bucket, home) = (self.0.get(hash), home(hash));
        (0..BUCKET).map(move |i| &bucket[(home + i) % BUCKET])
    }

    /// Prefetches the first slot for `hash`.
    #[inline(always)]
    pub fn prefetch(&self, hash: u64) {
        prefetch(&raw const self.0.get(hash)[home(hash)]);
    }

    /// Prefetches the other slots for `hash` if the first holds another key.
    #[inline(always)]
    pub fn prefetch_rest(&self, key: PretokenKey, hash: u64) {
        let mut slots = self.slots(hash);
        if let Some(first) = slots.next()
            && !first.is_free()
            && !holds(first, first.tag(), key)
        {
            slots.for_each(|slot| prefetch(slot));
        }
    }

    pub fn get(&self, key: PretokenKey, hash: u64) -> Option<PackedIds> {
        for slot in self.slots(hash) {
            let tag = slot.tag();
            if holds(slot, tag, key) {
                return Some(PackedIds(std::array::from_fn(|i| slot.word(1 + i))));
            }
            if tag == FREE {
                break;
            }
        }
        None
    }

    /// Inserts an entry, unless its bucket is full.
    pub fn insert(&self, key: PretokenKey, hash: u64, ids: PackedIds) {
        for slot in self.slots(hash) {
            let words = std::iter::once(key.low).chain(ids.0);
            if slot.fill(key.high, words) || holds(slot, slot.tag(), key) {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readers_never_see_partial_entries_while_threads_fill_full_buckets() {
        let cache = SharedCache::new().unwrap();
        // Few distinct hashes, so that all buckets overflow.
        let entry = |i: u64| {
            let key = PretokenKey::new(&i.to_le_bytes(), 0, 8);
            let ids = [i as u32, i as u32 + 1, i as u32 + 2, i as u32 + 3];
            (key, (i % 97) << 50, PackedIds::new(&ids).unwrap())
        };
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for i in (0..20_000).map(|i| i % 997) {
                        let (key, hash, ids) = entry(i);
                        match cache.get(key, hash) {
                            Some(found) => assert_eq!(found, ids),
                            None => cache.insert(key, hash, ids),
                        }
                    }
                });
            }
        });
        let kept =
            (0..997).filter(|i| cache.get(entry(*i).0, entry(*i).1) == Some(entry(*i).2)).count();
        assert!((97 * (BUCKET - 1)..=97 * BUCKET).contains(&kept), "{kept}");
    }
}
