//! The shared cache of pre-tokens that are too long for `shared.rs` or have too many ids there:
//! buckets of two write-once slots.

use super::huge_page_table::SharedHugePageTable;
use super::thread_long::hash_words;
use super::write_once::WriteOnceSlot;
use crate::simd::prefetch;

/// Binary logarithm of the number of buckets, which take 12 MiB.
const BITS: u32 = 15;
const BUCKET: usize = 2;
/// Longest pre-token that is cached, in bytes.
const MAX_BYTES: usize = 46;
/// Maximum number of ids of a cached pre-token.
const MAX_IDS: usize = 36;
/// Words of a key: length, number of ids and bytes of the pre-token.
const KEY_WORDS: usize = (MAX_BYTES + 2) / 8;
/// Index of the first word with ids. It is one less than `KEY_WORDS`, since the tag is the first
/// word of the key.
const ID_WORDS: usize = KEY_WORDS - 1;
/// The bits of the tag that hold the number of ids.
const COUNT: u64 = 0xFF00;
const COUNT_SHIFT: u32 = 8;

/// Three cache lines: the key, with the number of ids in its first word, and the ids in pairs.
type Slot = WriteOnceSlot<{ ID_WORDS + MAX_IDS / 2 }>;

const _: () = assert!(size_of::<Slot>() == 192);

/// The shared cache of long pre-tokens.
#[derive(Debug)]
pub struct SharedLongCache(SharedHugePageTable<[Slot; BUCKET], BITS>);

/// Length, zero for the number of ids, and bytes of a pre-token, with their hash.
#[derive(Debug)]
pub struct LongKey {
    words: [u64; KEY_WORDS],
    hash: u64,
}

impl LongKey {
    /// Packs a pre-token; returns `None` if it is too long.
    pub fn new(pretoken: &[u8]) -> Option<Self> {
        let mut bytes = [0; 8 * KEY_WORDS];
        bytes[2..].get_mut(..pretoken.len())?.copy_from_slice(pretoken);
        bytes[0] = pretoken.len() as u8;
        let chunks = bytes.as_chunks().0;
        let words = std::array::from_fn(|i| u64::from_le_bytes(chunks[i]));
        let hash = hash_words(0, words.into_iter());
        Some(Self { words, hash: (hash ^ hash >> 32).wrapping_mul(0x9E37_79B9_7F4A_7C15) })
    }
}

/// Returns whether `slot` holds `key`.
fn holds(slot: &Slot, key: &LongKey) -> bool {
    slot.tag() & !COUNT == key.words[0]
        && key.words[1..].iter().enumerate().all(|(i, word)| slot.word(i) == *word)
}

/// Prefetches the first two cache lines of a slot. Few pre-tokens have ids in the third.
fn prefetch_slot(slot: &Slot) {
    prefetch(slot);
    prefetch(slot.address(ID_WORDS + MAX_IDS / 4));
}

impl SharedLongCache {
    /// Creates an empty cache; returns `None` if there is not enough memory.
    pub fn new() -> Option<Self> {
        SharedHugePageTable::new().map(Self)
    }

    /// Prefetches the first slot for `key`.
    pub fn prefetch(&self, key: &LongKey) {
        prefetch_slot(&self.0.get(key.hash)[0]);
    }

    /// Prefetches the second slot for `key` if the first holds another key.
    pub fn prefetch_rest(&self, key: &LongKey) {
        let [first, second] = self.0.get(key.hash);
        if !first.is_free() && !holds(first, key) {
            prefetch_slot(second);
        }
    }

    /// Appends the ids of a key if it is cached. Returns whether it is.
    pub fn append(&self, key: &LongKey, out: &mut Vec<u32>) -> bool {
        let Some(slot) = self.0.get(key.hash).iter().find(|slot| holds(slot, key)) else {
            return false;
        };
        let count = (slot.tag() & COUNT) >> COUNT_SHIFT;
        let id = |i: usize| (slot.word(ID_WORDS + i / 2) >> (i % 2 * 32)) as u32;
        out.extend((0..count as usize).map(id));
        true
    }

    /// Inserts the ids of a key, unless there are too many or its bucket is full. Returns whether
    /// the key is cached now.
    pub fn insert(&self, key: &LongKey, ids: &[u32]) -> bool {
        if ids.len() > MAX_IDS {
            return false;
        }
        let tag = key.words[0] | (ids.len() as u64) << COUNT_SHIFT;
        let pair =
            |ids: &[u32]| u64::from(ids[0]) | u64::from(ids.get(1).copied().unwrap_or(0)) << 32;
        self.0.get(key.hash).iter().any(|slot| {
            let words = key.words[1..].iter().copied().chain(ids.chunks(2).map(pair));
            slot.fill(tag, words) || holds(slot, key)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pretoken(i: usize) -> Vec<u8> {
        format!("{i}{}", "x".repeat(i % 41)).into_bytes()
    }

    #[test]
    fn only_inserted_pretokens_are_found_with_their_ids() {
        let cache = SharedLongCache::new().unwrap();
        let ids = |i: usize| vec![i as u32 + 0x0100_0000; i % (MAX_IDS + 1)];
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
        assert!(!cache.insert(&keys[0], &[1; MAX_IDS + 1]));
        assert!(
            LongKey::new(&[b'x'; MAX_BYTES]).is_some()
                && LongKey::new(&[b'x'; MAX_BYTES + 1]).is_none()
        );
    }

    #[test]
    fn a_trailing_zero_byte_makes_another_key() {
        let cache = SharedLongCache::new().unwrap();
        assert!(cache.insert(&LongKey::new(b"abc").unwrap(), &[1]));
        assert!(!cache.append(&LongKey::new(b"abc\0").unwrap(), &mut Vec::new()));
    }

    #[test]
    fn readers_never_see_partial_entries() {
        let (cache, count) = (SharedLongCache::new().unwrap(), 20_000);
        let entry = |i: usize| (LongKey::new(&pretoken(i)).unwrap(), vec![i as u32 + 1; MAX_IDS]);
        // Find the entries that fit into their buckets first.
        let other = SharedLongCache::new().unwrap();
        let kept: Vec<_> = (0..count).filter(|&i| other.insert(&entry(i).0, &entry(i).1)).collect();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for &i in &kept {
                    assert!(cache.insert(&entry(i).0, &entry(i).1));
                }
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
    fn readers_never_see_partial_entries_while_threads_fill_full_buckets() {
        let cache = SharedLongCache::new().unwrap();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for i in (0..40_000).map(|i| i % 1999) {
                        let mut key = LongKey::new(&pretoken(i)).unwrap();
                        // Few distinct hashes, so that all buckets overflow.
                        key.hash = (i as u64 % 97) << 50;
                        let (ids, mut found) = (vec![i as u32; 1 + i % MAX_IDS], Vec::new());
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
