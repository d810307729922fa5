//! The merges: a table from a pair of tokens to its rank, and the merging of one pre-token.
//!
//! The pair of lowest rank merges first, the leftmost of equals. Short pre-tokens scan for it, long ones keep a heap, so that
//! a word of a million letters takes n log n.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use rustc_hash::FxHashMap;

use super::cache::huge_page_table::{HugeTable, Zeroable};

/// Symbols up to which scanning beats the heap.
const SCAN_LIMIT: usize = 48;
const NONE: u32 = u32::MAX;
/// The key of a free slot.
const FREE: u64 = 0;

/// Bits of the filter a merge.
const FILTER_BITS: usize = 16;

/// A pair and its merge, inverted, so that zeros are a free slot.
#[derive(Debug, Clone, Copy)]
struct Slot {
    key: u64,
    rank: u32,
    result: u32,
}

// SAFETY: integers.
unsafe impl Zeroable for Slot {}

/// From a pair of tokens to its rank and what it becomes.
///
/// Pairs of bytes have an array. The others are in an open-addressing table, at most half full; most pairs that are asked for do
/// not merge, and a bit for each hash, few enough to stay in a core's cache, says so of nearly all of them.
#[derive(Debug)]
pub struct MergeTable {
    slots: HugeTable<Slot>,
    shift: u32,
    filter: Vec<u64>,
    filter_shift: u32,
    /// Rank, inverted, and result of two bytes.
    byte_pairs: Vec<(u32, u32)>,
}

fn key(left: u32, right: u32) -> u64 {
    u64::from(left) << 32 | u64::from(right)
}

fn hash(key: u64) -> u64 {
    key.wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

impl MergeTable {
    /// Table of merges (left, right, result) in the order of their ranks, with the ids of single bytes. Of a repeated pair the
    /// first stays.
    pub fn new(merges: &[(u32, u32, u32)], byte_ids: &[u32; 256]) -> Self {
        let count = merges.len().max(8).next_power_of_two();
        let bits = |size: usize| size.next_power_of_two().trailing_zeros();
        let (slots, filter) = (count * 2, count * FILTER_BITS);
        let mut table = Self {
            slots: HugeTable::new(slots),
            shift: 64 - bits(slots),
            filter: vec![0; filter / 64],
            filter_shift: 64 - bits(filter),
            byte_pairs: vec![(0, 0); 1 << 16],
        };
        let bytes: FxHashMap<u32, usize> = byte_ids.iter().copied().zip(0..).collect();
        for (&(left, right, result), rank) in merges.iter().zip(0..) {
            let key = key(left, right);
            let at = table.find(key);
            if table.slots[at].key != FREE {
                continue;
            }
            table.slots[at] = Slot { key: !key, rank, result };
            let bit = table.filter_place(key);
            table.filter[bit / 64] |= 1 << (bit % 64);
            if let (Some(left), Some(right)) = (bytes.get(&left), bytes.get(&right)) {
                table.byte_pairs[left << 8 | right] = (!rank, result);
            }
        }
        table
    }

    #[inline]
    fn filter_place(&self, key: u64) -> usize {
        (hash(key) >> self.filter_shift) as usize
    }

    #[inline]
    fn find(&self, key: u64) -> usize {
        let mask = self.slots.len() - 1;
        let mut at = (hash(key) >> self.shift) as usize;
        while self.slots[at].key != !key && self.slots[at].key != FREE {
            at = (at + 1) & mask;
        }
        at
    }

    /// Rank and result of a pair; the rank is `u32::MAX` where the pair does not merge.
    #[inline]
    fn get(&self, left: u32, right: u32) -> (u32, u32) {
        let key = key(left, right);
        let bit = self.filter_place(key);
        if self.filter[bit / 64] >> (bit % 64) & 1 == 0 {
            return (NONE, NONE);
        }
        let slot = &self.slots[self.find(key)];
        if slot.key == FREE { (NONE, NONE) } else { (slot.rank, slot.result) }
    }

    /// Rank and result of two bytes, as `get`.
    #[inline]
    fn get_bytes(&self, pair: &[u8]) -> (u32, u32) {
        let (inverted, result) = self.byte_pairs[usize::from(pair[0]) << 8 | usize::from(pair[1])];
        (!inverted, result)
    }

    /// Merges `symbols`, the ids of `bytes`, as far as they go.
    pub fn merge(&self, bytes: &[u8], symbols: &mut Vec<u32>, work: &mut MergeWork) {
        match symbols.len() {
            0 | 1 => {}
            2..=SCAN_LIMIT => self.merge_by_scan(bytes, symbols, &mut work.scan),
            _ => self.merge_by_heap(symbols, work),
        }
    }

    fn merge_by_scan(&self, bytes: &[u8], symbols: &mut Vec<u32>, work: &mut ScanWork) {
        let count = symbols.len().min(SCAN_LIMIT);
        let ScanWork { pairs, results, previous, next } = work;
        let place = |rank: u32, at: usize| u64::from(rank) << 32 | at as u64;
        for (i, pair) in bytes.windows(2).enumerate().take(count) {
            let (rank, result) = self.get_bytes(pair);
            (pairs[i], results[i]) = (place(rank, i), result);
            (previous[i], next[i]) = (i.wrapping_sub(1) as u8, i as u8 + 1);
        }
        (previous[count - 1], next[count - 1]) = ((count - 2) as u8, count as u8);
        // A symbol that is gone has no pair, nor has the last.
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
                (pairs[at], results[at]) = (place(rank, at), result);
            }
            let before = usize::from(previous[at]);
            if before < count {
                let (rank, result) = self.get(symbols[before], symbols[at]);
                (pairs[before], results[before]) = (place(rank, before), result);
            }
        }
        symbols.retain(|&symbol| symbol != NONE);
    }

    fn merge_by_heap(&self, symbols: &mut Vec<u32>, work: &mut MergeWork) {
        let length = symbols.len();
        let MergeWork { heap, previous, next, .. } = work;
        previous.clear();
        next.clear();
        previous.extend((0..length as u32).map(|i| i.wrapping_sub(1)));
        next.extend((1..length as u32).chain([NONE]));
        let mut first: Vec<_> = std::mem::take(heap).into_vec();
        first.clear();
        first.extend((0..length - 1).filter_map(|i| {
            let (rank, _) = self.get(symbols[i], symbols[i + 1]);
            (rank != NONE).then_some(Reverse((rank, i as u32)))
        }));
        *heap = BinaryHeap::from(first);
        while let Some(Reverse((rank, at))) = heap.pop() {
            let at = at as usize;
            let right = next[at];
            if symbols[at] == NONE || right == NONE {
                continue;
            }
            let (current, result) = self.get(symbols[at], symbols[right as usize]);
            // An entry of a pair that has changed since: the pair that took its place has an entry of its own.
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

/// Room for merging a short pre-token: for each symbol the rank of its pair with the next one and its own place, what the pair
/// becomes, and its neighbours.
#[derive(Debug)]
struct ScanWork {
    pairs: [u64; SCAN_LIMIT],
    results: [u32; SCAN_LIMIT],
    previous: [u8; SCAN_LIMIT],
    next: [u8; SCAN_LIMIT],
}

impl Default for ScanWork {
    fn default() -> Self {
        let (pairs, results) = ([0; SCAN_LIMIT], [0; SCAN_LIMIT]);
        Self { pairs, results, previous: [0; SCAN_LIMIT], next: [0; SCAN_LIMIT] }
    }
}

/// Room that merging long pre-tokens uses again and again.
#[derive(Debug, Default)]
pub struct MergeWork {
    scan: ScanWork,
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
        // Random merges over a small alphabet, ranks in any order of lengths, so that ties and overlaps abound.
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
            table.merge_by_scan(&bytes, &mut scanned, &mut ScanWork::default());
            table.merge_by_heap(&mut heaped, &mut MergeWork::default());
            assert_eq!(scanned, heaped, "{seed}");
        }
    }
}
