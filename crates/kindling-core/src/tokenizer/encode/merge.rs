//! Merging one pre-token by rank.
//!
//! ```text
//! symbols = ids of the bytes
//! while some adjacent pair has a rank:
//!     merge the pair of the lowest rank, and of equal pairs the leftmost
//! ```
//!
//! 1. With up to `SCAN_LIMIT` symbols, each round scans all pairs for the minimum. (rank, position)
//!    is one integer, so the scan is a branchless minimum over a short array.
//! 2. Longer pre-tokens keep their pairs in a heap and their symbols in a linked list, so that n
//!    bytes take O(n log n) time. A heap entry whose pair has changed is skipped when it is popped.
//! 3. The table of pairs does not fit in a core's cache, and most pairs that are looked up do not
//!    merge. A filter of one bit per hash, small enough to stay in the cache, rejects nearly all of
//!    these.
//! 4. Pairs of bytes, with which every pre-token starts, are in an array that needs no hashing.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use rustc_hash::FxHashMap;

use super::cache::{HugePageTable, Zeroable};
use crate::tokenizer::parts::Merge;

/// Number of symbols up to which scanning beats the heap.
const SCAN_LIMIT: usize = 48;
/// Marks no rank, no symbol or no neighbor.
const NONE: u32 = u32::MAX;
/// Key of a free entry.
const FREE: u64 = 0;

/// Bits of the filter per merge.
const FILTER_BITS: usize = 16;

/// A pair and the token that it merges into. The key is inverted, so that an entry of zeros is
/// free.
#[derive(Debug, Clone, Copy)]
struct MergeEntry {
    inverted_key: u64,
    rank: u32,
    result: u32,
}

// SAFETY: three integers, for which zeros are valid.
unsafe impl Zeroable for MergeEntry {}

/// Table from a pair of tokens to its rank and result: open addressing, at most half full.
#[derive(Debug)]
pub struct MergeTable {
    entries: HugePageTable<MergeEntry>,
    shift: u32,
    filter: Vec<u64>,
    filter_shift: u32,
    /// Inverted rank and result of each pair of bytes.
    byte_pairs: Vec<(u32, u32)>,
}

fn key(left: u32, right: u32) -> u64 {
    u64::from(left) << 32 | u64::from(right)
}

fn hash(key: u64) -> u64 {
    key.wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

impl MergeTable {
    /// Builds the table of `merges`, which are in the order of their ranks. `byte_ids` are the ids
    /// of single bytes. Of a repeated pair, the first merge counts.
    pub fn new(merges: &[Merge], byte_ids: &[u32; 256]) -> Self {
        let count = merges.len().max(8).next_power_of_two();
        let bits = |size: usize| size.next_power_of_two().trailing_zeros();
        let (entries, filter) = (count * 2, count * FILTER_BITS);
        let mut table = Self {
            entries: HugePageTable::new(entries),
            shift: 64 - bits(entries),
            filter: vec![0; filter / 64],
            filter_shift: 64 - bits(filter),
            byte_pairs: vec![(0, 0); 1 << 16],
        };
        let bytes: FxHashMap<u32, usize> = byte_ids.iter().copied().zip(0..).collect();
        for (&(left, right, result), rank) in merges.iter().zip(0..) {
            let key = key(left, right);
            let index = table.find(key);
            if table.entries[index].inverted_key != FREE {
                continue;
            }
            table.entries[index] = MergeEntry { inverted_key: !key, rank, result };
            let bit = table.filter_bit(key);
            table.filter[bit / 64] |= 1 << (bit % 64);
            if let (Some(left), Some(right)) = (bytes.get(&left), bytes.get(&right)) {
                table.byte_pairs[left << 8 | right] = (!rank, result);
            }
        }
        table
    }

    #[inline]
    fn filter_bit(&self, key: u64) -> usize {
        (hash(key) >> self.filter_shift) as usize
    }

    /// Returns the index of the entry of `key`, or of the free entry where it belongs.
    #[inline]
    fn find(&self, key: u64) -> usize {
        let mask = self.entries.len() - 1;
        let mut at = (hash(key) >> self.shift) as usize;
        while self.entries[at].inverted_key != !key && self.entries[at].inverted_key != FREE {
            at = (at + 1) & mask;
        }
        at
    }

    /// Returns the rank and result of a pair; the rank is `NONE` if the pair does not merge.
    #[inline]
    fn get(&self, left: u32, right: u32) -> (u32, u32) {
        let key = key(left, right);
        let bit = self.filter_bit(key);
        if self.filter[bit / 64] >> (bit % 64) & 1 == 0 {
            return (NONE, NONE);
        }
        let entry = &self.entries[self.find(key)];
        if entry.inverted_key == FREE { (NONE, NONE) } else { (entry.rank, entry.result) }
    }

    /// Like `get`, for two bytes.
    #[inline]
    fn get_bytes(&self, pair: &[u8]) -> (u32, u32) {
        let (inverted, result) = self.byte_pairs[usize::from(pair[0]) << 8 | usize::from(pair[1])];
        (!inverted, result)
    }

    /// Merges `symbols`, the ids of `bytes`, until no adjacent pair merges.
    pub fn merge(&self, bytes: &[u8], symbols: &mut Vec<u32>, scratch: &mut MergeScratch) {
        match symbols.len() {
            0 | 1 => {}
            2..=SCAN_LIMIT => self.merge_by_scan(bytes, symbols, &mut scratch.scan),
            _ => self.merge_by_heap(symbols, scratch),
        }
    }

    fn merge_by_scan(&self, bytes: &[u8], symbols: &mut Vec<u32>, scratch: &mut ScanScratch) {
        let count = symbols.len().min(SCAN_LIMIT);
        let ScanScratch { pairs, results, previous, next } = scratch;
        let ranked = |rank: u32, at: usize| u64::from(rank) << 32 | at as u64;
        for (i, pair) in bytes.windows(2).enumerate().take(count) {
            let (rank, result) = self.get_bytes(pair);
            (pairs[i], results[i]) = (ranked(rank, i), result);
            (previous[i], next[i]) = (i.wrapping_sub(1) as u8, i as u8 + 1);
        }
        (previous[count - 1], next[count - 1]) = ((count - 2) as u8, count as u8);
        // Neither the last symbol nor one that was merged into the symbol before it has a pair.
        pairs[count - 1] = u64::MAX;
        while let Some(best) = pairs[..count].iter().copied().min()
            && best < u64::from(NONE) << 32
        {
            let at = best as u32 as usize;
            let right = usize::from(next[at]);
            symbols[at] = results[at];
            symbols[right] = NONE;
            pairs[right] = u64::MAX;
            let after = usize::from(next[right]);
            next[at] = after as u8;
            pairs[at] = u64::MAX;
            if after < count {
                previous[after] = at as u8;
                let (rank, result) = self.get(symbols[at], symbols[after]);
                (pairs[at], results[at]) = (ranked(rank, at), result);
            }
            let before = usize::from(previous[at]);
            if before < count {
                let (rank, result) = self.get(symbols[before], symbols[at]);
                (pairs[before], results[before]) = (ranked(rank, before), result);
            }
        }
        symbols.retain(|&symbol| symbol != NONE);
    }

    fn merge_by_heap(&self, symbols: &mut Vec<u32>, scratch: &mut MergeScratch) {
        let length = symbols.len();
        let MergeScratch { heap, previous, next, .. } = scratch;
        previous.clear();
        next.clear();
        previous.extend((0..length as u32).map(|i| i.wrapping_sub(1)));
        next.extend((1..length as u32).chain([NONE]));
        let mut entries: Vec<_> = std::mem::take(heap).into_vec();
        entries.clear();
        entries.extend((0..length - 1).filter_map(|i| {
            let (rank, _) = self.get(symbols[i], symbols[i + 1]);
            (rank != NONE).then_some(Reverse((rank, i as u32)))
        }));
        *heap = BinaryHeap::from(entries);
        while let Some(Reverse((rank, at))) = heap.pop() {
            let at = at as usize;
            let right = next[at];
            if symbols[at] == NONE || right == NONE {
                continue;
            }
            let (current, result) = self.get(symbols[at], symbols[right as usize]);
            // The pair has changed since it was pushed; the new pair has an entry of its own.
            if current != rank {
                continue;
            }
            symbols[at] = result;
            symbols[right as usize] = NONE;
            let after = next[right as usize];
            next[at] = after;
            if after != NONE {
                previous[after as usize] = at as u32;
                let (rank, _) = self.get(result, symbols[after as usize]);
                if rank != NONE {
                    heap.push(Reverse((rank, at as u32)));
                }
            }
            let before = previous[at];
            if before != NONE {
                let (rank, _) = self.get(symbols[before as usize], result);
                if rank != NONE {
                    heap.push(Reverse((rank, before)));
                }
            }
        }
        symbols.retain(|&symbol| symbol != NONE);
    }
}

/// Buffers for merging a short pre-token. Element i belongs to symbol i.
#[derive(Debug)]
struct ScanScratch {
    /// Rank of the pair (i, next[i]) in the high half, i in the low half.
    pairs: [u64; SCAN_LIMIT],
    /// Result of that pair.
    results: [u32; SCAN_LIMIT],
    previous: [u8; SCAN_LIMIT],
    next: [u8; SCAN_LIMIT],
}

impl Default for ScanScratch {
    fn default() -> Self {
        let (pairs, results) = ([0; SCAN_LIMIT], [0; SCAN_LIMIT]);
        Self { pairs, results, previous: [0; SCAN_LIMIT], next: [0; SCAN_LIMIT] }
    }
}

/// Buffers for merging a pre-token.
#[derive(Debug, Default)]
pub struct MergeScratch {
    scan: ScanScratch,
    /// (rank, index of the left symbol), lowest first.
    heap: BinaryHeap<Reverse<(u32, u32)>>,
    previous: Vec<u32>,
    next: Vec<u32>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::{Purpose, below};

    #[test]
    fn the_heap_and_the_scan_merge_alike() {
        // Random merges over a small alphabet, so that ties and overlapping pairs are frequent.
        for seed in 0..200 {
            let draw = |i: u64, bound: u64| below(seed, Purpose::Benchmark, i, 0, bound) as u32;
            let mut merges: Vec<(u32, u32, u32)> = Vec::new();
            for i in 0..30u32 {
                let known = u64::from(4 + i);
                merges.push((
                    draw(u64::from(i) * 2, known),
                    draw(u64::from(i) * 2 + 1, known),
                    4 + i,
                ));
            }
            let table = MergeTable::new(&merges, &std::array::from_fn(|byte| byte as u32));
            let bytes: Vec<u8> = (0..SCAN_LIMIT as u64).map(|i| draw(1000 + i, 4) as u8).collect();
            let symbols: Vec<u32> = bytes.iter().copied().map(u32::from).collect();
            let (mut scanned, mut heaped) = (symbols.clone(), symbols);
            table.merge_by_scan(&bytes, &mut scanned, &mut ScanScratch::default());
            table.merge_by_heap(&mut heaped, &mut MergeScratch::default());
            assert_eq!(scanned, heaped, "{seed}");
        }
    }
}
