//! From pre-token to ids, in a table that all threads share: buckets of four entries, each of which stays once it is there. Its
//! memory, 64 MiB, is taken from the system as entries come.

use std::sync::atomic::{AtomicU64, Ordering};

use super::huge_page_table::{SharedTable, SharedZeroable};
use super::{Ids, Key, WORDS};
use crate::simd::prefetch;

/// Buckets, as a power of two.
const BITS: u32 = 18;
const BUCKET: usize = 4;

/// An entry: low, high and the ids. `high` is 0 while it is free, `TAKEN` while one thread writes it, and never changes after
/// that.
#[derive(Debug)]
#[repr(align(64))]
struct Slot {
    low: AtomicU64,
    high: AtomicU64,
    ids: [AtomicU64; WORDS],
}

const TAKEN: u64 = u64::MAX;

// SAFETY: atomics.
unsafe impl SharedZeroable for [Slot; BUCKET] {}

/// The table.
#[derive(Debug)]
pub struct SharedCache(SharedTable<[Slot; BUCKET], BITS>);

/// The slot of its bucket where a hash is looked for first: entries spread over the slots, so that the line of the cache that
/// is fetched ahead is mostly the one that is needed.
#[inline(always)]
fn home(hash: u64) -> usize {
    (hash >> (64 - BITS - BUCKET.trailing_zeros())) as usize % BUCKET
}

impl SharedCache {
    /// An empty table; none where the system has no memory for it.
    pub fn new() -> Option<Self> {
        SharedTable::new().map(Self)
    }

    /// The slots of a hash's bucket, in the order in which they are filled.
    #[inline(always)]
    fn slots(&self, hash: u64) -> impl Iterator<Item = &Slot> {
        let (bucket, home) = (self.0.get(hash), home(hash));
        (0..BUCKET).map(move |i| &bucket[(home + i) % BUCKET])
    }

    /// Asks the processor for the first slot of a hash ahead of time.
    #[inline(always)]
    pub fn prefetch(&self, hash: u64) {
        prefetch(&raw const self.0.get(hash)[home(hash)]);
    }

    /// Asks for the slots behind it if another key has it.
    #[inline(always)]
    pub fn prefetch_next(&self, key: Key, hash: u64) {
        let mut slots = self.slots(hash);
        if slots.next().is_some_and(|first| first.is_of_another(key)) {
            slots.for_each(|slot| prefetch(slot));
        }
    }

    pub fn get(&self, key: Key, hash: u64) -> Option<Ids> {
        for slot in self.slots(hash) {
            // What was written before `high` is seen after it.
            let high = slot.high.load(Ordering::Acquire);
            if high == key.high && slot.low.load(Ordering::Relaxed) == key.low {
                return Some(Ids(std::array::from_fn(|i| slot.ids[i].load(Ordering::Relaxed))));
            }
            if high == 0 {
                break;
            }
        }
        None
    }

    /// Keeps an entry where its bucket has room.
    pub fn insert(&self, key: Key, hash: u64, ids: Ids) {
        for slot in self.slots(hash) {
            match slot.high.compare_exchange(0, TAKEN, Ordering::Relaxed, Ordering::Acquire) {
                Ok(_) => {
                    slot.low.store(key.low, Ordering::Relaxed);
                    for (place, word) in slot.ids.iter().zip(ids.0) {
                        place.store(word, Ordering::Relaxed);
                    }
                    slot.high.store(key.high, Ordering::Release);
                    return;
                }
                Err(high) if high == key.high && slot.low.load(Ordering::Relaxed) == key.low => {
                    return;
                }
                Err(_) => {}
            }
        }
    }
}

impl Slot {
    #[inline(always)]
    fn is_of_another(&self, key: Key) -> bool {
        let high = self.high.load(Ordering::Relaxed);
        high != 0 && (high != key.high || self.low.load(Ordering::Relaxed) != key.low)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_that_fill_the_shared_table_at_once_read_whole_entries() {
        let cache = SharedCache::new().unwrap();
        // Few hashes, so that all buckets overflow.
        let entry = |i: u64| {
            let key = Key::new(&i.to_le_bytes(), 0, 8);
            let ids = Ids::new(&[i as u32, i as u32 + 1, i as u32 + 2, i as u32 + 3]).unwrap();
            (key, (i % 97) << 50, ids)
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
