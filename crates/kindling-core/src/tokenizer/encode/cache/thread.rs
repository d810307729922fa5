//! A thread's cache of short pre-tokens: a direct-mapped table in which a new entry replaces the
//! old one.

use super::huge_page_table::{HugePageTable, Zeroable};
use super::packed_ids::PackedIds;
use crate::simd::prefetch;
use crate::tokenizer::pretokenize::PretokenKey;

/// Binary logarithm of the number of entries, which take 4 MiB.
const BITS: u32 = 16;

/// One cache line. While the entry is free, the key is 0, which no pre-token has.
#[derive(Debug, Clone, Copy)]
#[repr(align(64))]
struct ThreadEntry {
    key: PretokenKey,
    ids: PackedIds,
}

const _: () = assert!(size_of::<ThreadEntry>() == 64);

// SAFETY: eight integers, for which zeros are valid.
unsafe impl Zeroable for ThreadEntry {}

/// A thread's cache of short pre-tokens.
#[derive(Debug)]
pub struct ThreadCache(HugePageTable<ThreadEntry>);

impl ThreadCache {
    pub fn new() -> Self {
        Self(HugePageTable::new(1 << BITS))
    }

    #[inline(always)]
    fn index(hash: u64) -> usize {
        (hash >> (64 - BITS)) as usize
    }

    #[inline(always)]
    fn entry(&self, hash: u64) -> &ThreadEntry {
        // SAFETY: an index has `BITS` bits, and the table has `1 << BITS` entries.
        unsafe { self.0.get_unchecked(Self::index(hash)) }
    }

    /// Prefetches the entry for `hash`.
    #[inline(always)]
    pub fn prefetch(&self, hash: u64) {
        prefetch(&raw const *self.entry(hash));
    }

    /// Returns whether `key` may be cached. Compares only the first eight bytes, without a branch.
    #[inline(always)]
    pub fn may_hold(&self, key: PretokenKey, hash: u64) -> bool {
        self.entry(hash).key.low == key.low
    }

    #[inline(always)]
    pub fn get(&self, key: PretokenKey, hash: u64) -> Option<&PackedIds> {
        let entry = self.entry(hash);
        (entry.key == key).then_some(&entry.ids)
    }

    pub fn insert(&mut self, key: PretokenKey, hash: u64, ids: PackedIds) {
        self.0[Self::index(hash)] = ThreadEntry { key, ids };
    }
}
