//! From pre-token to ids, in two tables of fixed size: a small one for each thread, here, in which a newcomer takes its place, and
//! a large one that all threads share (`shared_cache.rs`), in which an entry stays once it is there. Nothing is allocated for a
//! pre-token.
//!
//! An entry is 64 bytes, a line of the processor's cache: the pre-token itself (at most 15 bytes) with its length, and at most
//! twelve ids of 24 bits. Languages that a vocabulary knows little of need that many.

pub mod huge_page_table;
pub mod long;
pub mod shared;
pub mod shared_long;

use self::huge_page_table::{HugeTable, Zeroable};
use crate::simd::prefetch;

/// Bytes of the longest pre-token that is kept.
pub const CACHED_BYTES: usize = 15;
/// Ids kept of one pre-token.
pub const CACHED_IDS: usize = 12;
/// Ids that most pre-tokens have at most.
pub const FEW_IDS: usize = 4;
pub const WORDS: usize = CACHED_IDS / 2;
/// Ids below this can be kept.
pub const CACHED_VOCAB: usize = 1 << 24;
/// The bits of an id.
const ID: u64 = CACHED_VOCAB as u64 - 1;

/// Entries of a thread's table, as a power of two: 4 MiB.
const OWN_BITS: u32 = 16;

/// A pre-token's bytes, and its length in the highest byte; never 0. That of a longer one has its first bytes, and a length of
/// `CACHED_BYTES` + 1, by which it differs from all that are kept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Key {
    pub low: u64,
    pub high: u64,
}

/// What is kept of the sixteen bytes from a pre-token's start on, for each length.
static KEEP: [(u64, u64); CACHED_BYTES + 2] = {
    let mut table = [(0, 0); CACHED_BYTES + 2];
    let mut length = 1;
    while length < table.len() {
        let bytes = if length < CACHED_BYTES { length } else { CACHED_BYTES };
        let all = (1u128 << (bytes * 8)) - 1;
        table[length] = (all as u64, (all >> 64) as u64);
        length += 1;
    }
    table
};

impl Key {
    /// Key of the bytes `start..end` (at least one) of `text`.
    #[inline(always)]
    pub fn new(text: &[u8], start: usize, end: usize) -> Self {
        let length = (end - start).min(CACHED_BYTES + 1);
        let (keep_low, keep_high) = KEEP[length];
        let sixteen = if let Some(sixteen) = text[start..].first_chunk::<16>() {
            u128::from_le_bytes(*sixteen)
        } else {
            let mut all = [0; 16];
            all[..length].copy_from_slice(&text[start..start + length]);
            u128::from_le_bytes(all)
        };
        Self {
            low: sixteen as u64 & keep_low,
            high: (sixteen >> 64) as u64 & keep_high | (length as u64) << 56,
        }
    }

    /// Whether it is that of a whole pre-token, which can be kept.
    pub fn is_whole(self) -> bool {
        self.high >> 56 <= CACHED_BYTES as u64
    }

    /// The bytes, and how many of them count.
    pub fn bytes(self) -> ([u8; 16], usize) {
        let all = u128::from(self.low) | u128::from(self.high) << 64;
        (all.to_le_bytes(), (self.high >> 56) as usize)
    }

    /// A hash whose highest bits are the best.
    #[inline(always)]
    pub fn hash(self) -> u64 {
        let product = u128::from(self.low ^ 0xFF51_AFD7_ED55_8CCD)
            * u128::from(self.high ^ 0xC4CE_B9FE_1A85_EC53);
        product as u64 ^ (product >> 64) as u64
    }
}

/// Up to twelve ids, two to a word, and in the highest byte of the first word how many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ids(pub [u64; WORDS]);

impl Ids {
    /// `ids`, if they are few and small enough.
    pub fn new(ids: &[u32]) -> Option<Self> {
        if ids.len() > CACHED_IDS || ids.iter().any(|id| *id as usize >= CACHED_VOCAB) {
            return None;
        }
        let id = |i: usize| u64::from(ids.get(i).copied().unwrap_or(0));
        let mut words = std::array::from_fn(|i| id(2 * i) | id(2 * i + 1) << 32);
        words[0] |= (ids.len() as u64) << 56;
        Some(Self(words))
    }

    /// How many ids there are.
    #[inline(always)]
    pub fn count(&self) -> usize {
        (self.0[0] >> 56) as usize
    }

    /// The ids; only the first `count` mean anything.
    #[inline(always)]
    pub fn get(&self) -> [u32; CACHED_IDS] {
        std::array::from_fn(|i| (self.0[i / 2] >> (i % 2 * 32)) as u32 & ID as u32)
    }

    /// The first four of the ids, as they lie in memory.
    #[inline(always)]
    pub fn first(&self) -> [u64; FEW_IDS / 2] {
        // The first of two is the one that comes first in memory.
        let order = if cfg!(target_endian = "little") { 0 } else { 32 };
        std::array::from_fn(|i| (self.0[i] & (ID | ID << 32)).rotate_left(order))
    }
}

#[derive(Debug, Clone, Copy)]
#[repr(align(64))]
struct Entry {
    key: Key,
    ids: Ids,
}

// SAFETY: integers, of which a key of zeros is no pre-token's.
unsafe impl Zeroable for Entry {}

/// A thread's table.
#[derive(Debug)]
pub struct OwnCache(HugeTable<Entry>);

impl OwnCache {
    pub fn new() -> Self {
        Self(HugeTable::new(1 << OWN_BITS))
    }

    #[inline(always)]
    fn place(hash: u64) -> usize {
        (hash >> (64 - OWN_BITS)) as usize
    }

    #[inline(always)]
    fn entry(&self, hash: u64) -> &Entry {
        // SAFETY: a place is of `OWN_BITS` bits, and so many entries there are.
        unsafe { self.0.get_unchecked(Self::place(hash)) }
    }

    /// Asks the processor for the entry of a hash ahead of time.
    #[inline(always)]
    pub fn prefetch(&self, hash: u64) {
        prefetch(&raw const *self.entry(hash));
    }

    /// Whether a key may be here, without a branch: another one with the same first eight bytes may.
    #[inline(always)]
    pub fn may_hold(&self, key: Key, hash: u64) -> bool {
        self.entry(hash).key.low == key.low
    }

    #[inline(always)]
    pub fn get(&self, key: Key, hash: u64) -> Option<&Ids> {
        let entry = self.entry(hash);
        (entry.key == key).then_some(&entry.ids)
    }

    pub fn insert(&mut self, key: Key, hash: u64, ids: Ids) {
        self.0[Self::place(hash)] = Entry { key, ids };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pretoken_is_told_apart_from_all_others() {
        let text = b"ab\0 abc abcdefghijklmnopq";
        let keys = [(0, 1), (0, 2), (0, 3), (1, 2), (4, 7), (8, 23), (9, 23)]
            .map(|(start, end)| Key::new(text, start, end));
        for (i, key) in keys.iter().enumerate() {
            assert!(!matches!(key.high, 0 | u64::MAX) && !keys[..i].contains(key));
        }
        assert_eq!(Key::new(b"abc", 0, 2), Key::new(text, 0, 2));
        assert_eq!(keys.map(Key::is_whole), [true, true, true, true, true, true, true]);
        let longer = Key::new(text, 8, 24);
        assert!(!longer.is_whole() && longer == Key::new(text, 8, 25) && !keys.contains(&longer));
    }

    #[test]
    fn ids_come_back_and_too_many_or_too_large_ones_are_not_kept() {
        for ids in
            [&[1][..], &[0x00FF_FFFF, 0], &[7, 0x00FF_FFFF, 9], &[1, 2, 3, 0x00FF_FFFF], &[5; 12]]
        {
            let kept = Ids::new(ids).unwrap();
            assert_eq!(&kept.get()[..kept.count()], ids);
            let few = ids.len().min(FEW_IDS);
            let first = kept.first().map(u64::to_ne_bytes).concat();
            let bytes: Vec<u8> = ids[..few].iter().flat_map(|id| id.to_ne_bytes()).collect();
            assert_eq!(first[..4 * few], bytes);
        }
        assert_eq!(Ids::new(&[1; 13]), None);
        assert_eq!(Ids::new(&[1 << 24]), None);
    }
}
