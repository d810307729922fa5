//! A thread's cache of pre-tokens that are too long for `thread.rs` or have too many ids there.
//!
//! Those of up to `TABLE_BYTES` bytes are in a direct-mapped table if they have at most `TABLE_IDS`
//! ids. Longer ones are in a map that is cleared when it is full.

use rustc_hash::FxHashMap;

use super::huge_page_table::{HugePageTable, Zeroable};

/// Limits of the table, with which an entry is two cache lines.
const TABLE_BYTES: usize = 46;
const TABLE_IDS: usize = 20;
/// Binary logarithm of the number of entries of the table, which take 4 MiB.
const TABLE_BITS: u32 = 15;
/// Longest pre-token that is cached, in bytes.
const MAX_BYTES: usize = 512;
/// Bytes that the map may take.
const MAP_CAPACITY: usize = 4 << 20;
/// Estimated bytes of an entry of the map besides its key and ids.
const MAP_OVERHEAD: usize = 64;

#[derive(Debug, Clone, Copy)]
#[repr(align(64))]
struct LongEntry {
    /// Length in bytes; 0 while the entry is free.
    length: u8,
    num_ids: u8,
    bytes: [u8; TABLE_BYTES],
    ids: [u32; TABLE_IDS],
}

const _: () = assert!(size_of::<LongEntry>() == 128);

// SAFETY: integers, for which zeros are valid.
unsafe impl Zeroable for LongEntry {}

/// A thread's cache of long pre-tokens.
#[derive(Debug, Default)]
pub struct ThreadLongCache {
    /// Allocated with the first entry.
    table: Option<HugePageTable<LongEntry>>,
    map: FxHashMap<Box<[u8]>, Box<[u32]>>,
    map_bytes: usize,
}

/// Hashes words. The highest bits of the hash are mixed best.
pub fn hash_words(first: u64, words: impl Iterator<Item = u64>) -> u64 {
    words.fold(first, |hash, word| (hash.rotate_left(5) ^ word).wrapping_mul(0x9E37_79B9_7F4A_7C15))
}

/// Returns the index of a pre-token in the table.
fn index(pretoken: &[u8]) -> usize {
    let words = pretoken.chunks(8).map(|chunk| {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        u64::from_le_bytes(word)
    });
    (hash_words(pretoken.len() as u64, words) >> (64 - TABLE_BITS)) as usize
}

impl ThreadLongCache {
    /// Returns the ids of a pre-token.
    pub fn get(&self, pretoken: &[u8]) -> Option<&[u32]> {
        if pretoken.len() <= TABLE_BYTES {
            let entry = self.table.as_ref()?.get(index(pretoken))?;
            let found = entry.bytes[..usize::from(entry.length)] == *pretoken;
            return found.then(|| &entry.ids[..usize::from(entry.num_ids)]);
        }
        if pretoken.len() > MAX_BYTES { None } else { self.map.get(pretoken).map(AsRef::as_ref) }
    }

    /// Inserts the ids of a pre-token if it is within the limits.
    pub fn insert(&mut self, pretoken: &[u8], ids: &[u32]) {
        if pretoken.len() > TABLE_BYTES {
            return self.insert_in_map(pretoken, ids);
        }
        if ids.len() > TABLE_IDS {
            return;
        }
        let table = self.table.get_or_insert_with(|| HugePageTable::new(1 << TABLE_BITS));
        let entry = &mut table[index(pretoken)];
        entry.length = pretoken.len() as u8;
        entry.num_ids = ids.len() as u8;
        entry.bytes[..pretoken.len()].copy_from_slice(pretoken);
        entry.ids[..ids.len()].copy_from_slice(ids);
    }

    fn insert_in_map(&mut self, pretoken: &[u8], ids: &[u32]) {
        if pretoken.len() > MAX_BYTES {
            return;
        }
        self.map_bytes += pretoken.len() + size_of_val(ids) + MAP_OVERHEAD;
        if self.map_bytes > MAP_CAPACITY {
            self.map.clear();
            self.map_bytes = 0;
        }
        self.map.insert(pretoken.into(), ids.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_inserted_pretokens_are_found_with_their_ids() {
        let mut cache = ThreadLongCache::default();
        let pretoken = |i: u32| format!("{i}{}", "x".repeat((i % 70) as usize)).into_bytes();
        let ids = |i: u32| vec![i; (i % 25) as usize + 1];
        let mut hits = 0;
        for i in (0..30_000u32).map(|i| i * i % 20_011) {
            if let Some(found) = cache.get(&pretoken(i)) {
                assert_eq!(found, ids(i), "{i}");
                hits += 1;
            } else {
                cache.insert(&pretoken(i), &ids(i));
            }
        }
        assert!(hits > 1000, "{hits}");
        assert_eq!(cache.get(b"never seen"), None);
    }
}
