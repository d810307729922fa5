//! From pre-token to ids where the pre-token has more bytes or ids than `shared_cache.rs` takes, in a table that all threads
//! share: buckets of two entries, each of which stays once it is there.
//!
//! An entry is three lines of the processor's cache: length, number of ids and at most 46 bytes, then at most 36 ids of 32 bits.

use std::sync::atomic::{AtomicU64, Ordering};

use super::huge_page_table::{SharedTable, SharedZeroable};
use super::long::hash_of;
use crate::simd::prefetch;

/// Buckets, as a power of two: 12 MiB in all.
const BITS: u32 = 15;
const BUCKET: usize = 2;
/// Bytes of the longest pre-token that is kept.
const BYTES: usize = 46;
/// Ids kept of one.
const IDS: usize = 36;
const TEXT_WORDS: usize = (BYTES + 2) / 8;
/// Where the number of ids stands in the first word.
const COUNT: u64 = 0xFF00;
const COUNT_SHIFT: u32 = 8;

/// An entry. Its first word is 0 while it is free, `TAKEN` while one thread writes it, and never changes after that.
#[derive(Debug)]
#[repr(align(64))]
struct Slot {
    text: [AtomicU64; TEXT_WORDS],
    ids: [AtomicU64; IDS / 2],
}

const TAKEN: u64 = u64::MAX;

// SAFETY: atomics.
unsafe impl SharedZeroable for [Slot; BUCKET] {}

/// The table.
#[derive(Debug)]
pub struct SharedLongCache(SharedTable<[Slot; BUCKET], BITS>);

/// Length, a byte for the number of ids (0 here), and the bytes of a pre-token, with their hash.
#[derive(Debug)]
pub struct LongKey {
    words: [u64; TEXT_WORDS],
    hash: u64,
}

impl LongKey {
    /// None for a pre-token that is not kept.
    pub fn new(pretoken: &[u8]) -> Option<Self> {
        let mut bytes = [0; 8 * TEXT_WORDS];
        bytes[2..].get_mut(..pretoken.len())?.copy_from_slice(pretoken);
        bytes[0] = pretoken.len() as u8;
        let chunks = bytes.as_chunks().0;
        let words = std::array::from_fn(|i| u64::from_le_bytes(chunks[i]));
        let hash = hash_of(0, words.into_iter());
        Some(Self { words, hash: (hash ^ hash >> 32).wrapping_mul(0x9E37_79B9_7F4A_7C15) })
    }
}

impl SharedLongCache {
    /// An empty table; none where the system has no memory for it.
    pub fn new() -> Option<Self> {
        SharedTable::new().map(Self)
    }

    /// Asks the processor for the first slot of a key ahead of time.
    pub fn prefetch(&self, key: &LongKey) {
        let slot = &self.0.get(key.hash)[0];
        prefetch(slot);
        prefetch(&raw const slot.ids[IDS / 4]);
    }

    /// Asks for the slot behind it if another key has it.
    pub fn prefetch_next(&self, key: &LongKey) {
        let [first, second] = self.0.get(key.hash);
        if first.text[0].load(Ordering::Relaxed) != 0 && !first.holds(key) {
            prefetch(second);
            prefetch(&raw const second.ids[IDS / 4]);
        }
    }

    /// Appends the ids of a key, if they are known; says whether they are.
    pub fn append(&self, key: &LongKey, out: &mut Vec<u32>) -> bool {
        let Some(slot) = self.0.get(key.hash).iter().find(|slot| slot.holds(key)) else {
            return false;
        };
        let count = (slot.text[0].load(Ordering::Relaxed) & COUNT) >> COUNT_SHIFT;
        let word = |i: usize| slot.ids[i / 2].load(Ordering::Relaxed);
        out.extend((0..count as usize).map(|i| (word(i) >> (i % 2 * 32)) as u32));
        true
    }

    /// Keeps the ids of a key where its bucket has room; says whether it has them now.
    pub fn insert(&self, key: &LongKey, ids: &[u32]) -> bool {
        if ids.len() > IDS {
            return false;
        }
        for slot in self.0.get(key.hash) {
            match slot.text[0].compare_exchange(0, TAKEN, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => {
                    slot.write(key, ids);
                    return true;
                }
                Err(_) if slot.holds(key) => return true,
                Err(_) => {}
            }
        }
        false
    }
}

impl Slot {
    fn holds(&self, key: &LongKey) -> bool {
        // What was written before the first word is seen after it.
        self.text[0].load(Ordering::Acquire) & !COUNT == key.words[0]
            && self.text[1..]
                .iter()
                .zip(&key.words[1..])
                .all(|(text, word)| text.load(Ordering::Relaxed) == *word)
    }

    /// Fills a slot that is taken.
    fn write(&self, key: &LongKey, ids: &[u32]) {
        for (place, ids) in self.ids.iter().zip(ids.chunks(2)) {
            let second = ids.get(1).copied().unwrap_or(0);
            place.store(u64::from(ids[0]) | u64::from(second) << 32, Ordering::Relaxed);
        }
        for (place, word) in self.text[1..].iter().zip(&key.words[1..]) {
            place.store(*word, Ordering::Relaxed);
        }
        self.text[0].store(key.words[0] | (ids.len() as u64) << COUNT_SHIFT, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pretoken(i: usize) -> Vec<u8> {
        format!("{i}{}", "x".repeat(i % 41)).into_bytes()
    }

    #[test]
    fn what_is_kept_comes_back_and_nothing_else() {
        let cache = SharedLongCache::new().unwrap();
        let ids = |i: usize| vec![i as u32 + 0x0100_0000; i % (IDS + 1)];
        let keys: Vec<_> = (0..30_000).map(|i| LongKey::new(&pretoken(i)).unwrap()).collect();
        let kept: Vec<bool> =
            keys.iter().enumerate().map(|(i, key)| cache.insert(key, &ids(i))).collect();
        for (i, key) in keys.iter().enumerate() {
            let mut found = vec![7];
            assert_eq!(cache.append(key, &mut found), kept[i]);
            assert_eq!(found[1..], if kept[i] { ids(i) } else { vec![] }, "{i}");
        }
        assert!(kept.iter().filter(|kept| **kept).count() > 25_000);
        assert!(!cache.append(&LongKey::new(b"never seen").unwrap(), &mut Vec::new()));
        assert!(!cache.insert(&keys[0], &[1; IDS + 1]));
        assert!(
            LongKey::new(&[b'x'; BYTES]).is_some() && LongKey::new(&[b'x'; BYTES + 1]).is_none()
        );
    }

    #[test]
    fn a_zero_byte_at_the_end_counts() {
        let cache = SharedLongCache::new().unwrap();
        assert!(cache.insert(&LongKey::new(b"abc").unwrap(), &[1]));
        assert!(!cache.append(&LongKey::new(b"abc\0").unwrap(), &mut Vec::new()));
    }

    #[test]
    fn who_waits_for_an_entry_reads_all_of_it() {
        let (cache, count) = (SharedLongCache::new().unwrap(), 20_000);
        let entry = |i: usize| (LongKey::new(&pretoken(i)).unwrap(), vec![i as u32 + 1; IDS]);
        // What the buckets have no room for is found out first.
        let other = SharedLongCache::new().unwrap();
        let kept: Vec<_> = (0..count).filter(|&i| other.insert(&entry(i).0, &entry(i).1)).collect();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                kept.iter().for_each(|&i| assert!(cache.insert(&entry(i).0, &entry(i).1)))
            });
            for &i in &kept {
                let ((key, ids), mut found) = (entry(i), Vec::new());
                while !cache.append(&key, &mut found) {
                    std::hint::spin_loop();
                }
                assert_eq!(found, ids);
            }
        });
    }

    #[test]
    fn threads_that_fill_it_at_once_read_whole_entries() {
        let cache = SharedLongCache::new().unwrap();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for i in (0..40_000).map(|i| i % 1999) {
                        let mut key = LongKey::new(&pretoken(i)).unwrap();
                        // Few hashes, so that all buckets overflow.
                        key.hash = (i as u64 % 97) << 50;
                        let (ids, mut found) = (vec![i as u32; 1 + i % IDS], Vec::new());
                        if cache.append(&key, &mut found) {
                            assert_eq!(found, ids);
                        } else {
                            cache.insert(&key, &ids);
                        }
                    }
                });
            }
        });
    }
}
