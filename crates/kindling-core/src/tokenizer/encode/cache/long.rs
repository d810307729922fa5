//! Pre-tokens that are too long for the tables of `cache.rs`, or have too many ids: a table of fixed size, in which a newcomer
//! takes its place, and for the longest a map that is emptied when it is full.

use rustc_hash::FxHashMap;

use super::huge_page_table::{HugeTable, Zeroable};

/// Bytes of the longest pre-token in the table, and ids it may have: with these an entry is 128 bytes.
const TABLE_BYTES: usize = 46;
const TABLE_IDS: usize = 20;
/// Entries of the table, as a power of two.
const TABLE_BITS: u32 = 15;
/// Bytes of the longest pre-token that is kept.
const LONGEST: usize = 512;
/// Bytes that the map's keys and ids may take.
const ROOM: usize = 4 << 20;
/// What an entry of the map takes besides them, about.
const OVERHEAD: usize = 64;

#[derive(Debug, Clone, Copy)]
#[repr(align(64))]
struct Entry {
    /// 0 where the entry is free.
    length: u8,
    count: u8,
    bytes: [u8; TABLE_BYTES],
    ids: [u32; TABLE_IDS],
}

// SAFETY: integers; a length of 0 is no pre-token's.
unsafe impl Zeroable for Entry {}

/// A thread's cache from pre-token to ids.
#[derive(Debug, Default)]
pub struct LongCache {
    /// None until the first entry.
    table: Option<HugeTable<Entry>>,
    map: FxHashMap<Box<[u8]>, Box<[u32]>>,
    used: usize,
}

/// A hash of words, whose highest bits are the best.
pub fn hash_of(first: u64, words: impl Iterator<Item = u64>) -> u64 {
    words.fold(first, |hash, word| (hash.rotate_left(5) ^ word).wrapping_mul(0x9E37_79B9_7F4A_7C15))
}

/// The place of a pre-token in the table.
fn place(pretoken: &[u8]) -> usize {
    let words = pretoken.chunks(8).map(|chunk| {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        u64::from_le_bytes(word)
    });
    (hash_of(pretoken.len() as u64, words) >> (64 - TABLE_BITS)) as usize
}

impl LongCache {
    /// The ids of a pre-token, if they are known.
    pub fn get(&self, pretoken: &[u8]) -> Option<&[u32]> {
        if pretoken.len() <= TABLE_BYTES {
            let entry = self.table.as_ref()?.get(place(pretoken))?;
            let known = entry.bytes[..usize::from(entry.length)] == *pretoken;
            return known.then(|| &entry.ids[..usize::from(entry.count)]);
        }
        if pretoken.len() > LONGEST { None } else { self.map.get(pretoken).map(AsRef::as_ref) }
    }

    /// Keeps the ids of a pre-token where they fit.
    pub fn insert(&mut self, pretoken: &[u8], ids: &[u32]) {
        if pretoken.len() > TABLE_BYTES {
            return self.insert_longest(pretoken, ids);
        }
        if ids.len() > TABLE_IDS {
            return;
        }
        let table = self.table.get_or_insert_with(|| HugeTable::new(1 << TABLE_BITS));
        let entry = &mut table[place(pretoken)];
        entry.length = pretoken.len() as u8;
        entry.count = ids.len() as u8;
        entry.bytes[..pretoken.len()].copy_from_slice(pretoken);
        entry.ids[..ids.len()].copy_from_slice(ids);
    }

    fn insert_longest(&mut self, pretoken: &[u8], ids: &[u32]) {
        if pretoken.len() > LONGEST {
            return;
        }
        self.used += pretoken.len() + size_of_val(ids) + OVERHEAD;
        if self.used > ROOM {
            self.map.clear();
            self.used = 0;
        }
        self.map.insert(pretoken.into(), ids.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_comes_back_and_nothing_else() {
        let mut cache = LongCache::default();
        let pretoken = |i: u32| format!("{i}{}", "x".repeat((i % 70) as usize)).into_bytes();
        let ids = |i: u32| vec![i; (i % 25) as usize + 1];
        let mut found = 0;
        for i in (0..30_000u32).map(|i| i * i % 20_011) {
            if let Some(known) = cache.get(&pretoken(i)) {
                assert_eq!(known, ids(i), "{i}");
                found += 1;
            } else {
                cache.insert(&pretoken(i), &ids(i));
            }
        }
        assert!(found > 1000, "{found}");
        assert_eq!(cache.get(b"never seen"), None);
    }
}
