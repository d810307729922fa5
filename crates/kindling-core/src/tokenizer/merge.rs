//! The merges: a table from a pair of tokens to its rank, and the merging of one pre-token.
//!
//! The pair of lowest rank merges first, the leftmost of equals. Short pre-tokens scan for it, long ones keep a heap, so that
//! a word of a million letters takes n log n.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Symbols up to which scanning beats the heap.
const SCAN_LIMIT: usize = 48;
const NONE: u32 = u32::MAX;
const EMPTY: u64 = u64::MAX;

#[derive(Debug, Clone, Copy)]
struct Slot {
    key: u64,
    rank: u32,
    result: u32,
}

/// Open-addressing table of (left, right) to (rank, result); at most half full.
#[derive(Debug)]
pub struct MergeTable {
    slots: Vec<Slot>,
    shift: u32,
}

fn key(left: u32, right: u32) -> u64 {
    u64::from(left) << 32 | u64::from(right)
}

impl MergeTable {
    /// Table of merges (left, right, result) in the order of their ranks. Of a repeated pair the first stays.
    pub fn new(merges: &[(u32, u32, u32)]) -> Self {
        let bits = (merges.len().max(8) * 2).next_power_of_two().trailing_zeros();
        let slots = vec![Slot { key: EMPTY, rank: NONE, result: NONE }; 1 << bits];
        let mut table = Self { slots, shift: 64 - bits };
        for (&(left, right, result), rank) in merges.iter().zip(0..) {
            let key = key(left, right);
            let at = table.find(key);
            if table.slots[at].key == EMPTY {
                table.slots[at] = Slot { key, rank, result };
            }
        }
        table
    }

    #[inline]
    fn find(&self, key: u64) -> usize {
        let mask = self.slots.len() - 1;
        let mut at = (key.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> self.shift) as usize;
        while self.slots[at].key != key && self.slots[at].key != EMPTY {
            at = (at + 1) & mask;
        }
        at
    }

    /// Rank and result of a pair; the rank is `u32::MAX` where the pair does not merge.
    #[inline]
    fn get(&self, left: u32, right: u32) -> (u32, u32) {
        let slot = &self.slots[self.find(key(left, right))];
        (slot.rank, slot.result)
    }

    /// Merges `symbols` (the ids of single bytes) as far as they go.
    pub fn merge(&self, symbols: &mut Vec<u32>, work: &mut MergeWork) {
        match symbols.len() {
            0 | 1 => {}
            2..=SCAN_LIMIT => self.merge_by_scan(symbols),
            _ => self.merge_by_heap(symbols, work),
        }
    }

    fn merge_by_scan(&self, symbols: &mut Vec<u32>) {
        let mut pairs = [(NONE, NONE); SCAN_LIMIT];
        let mut length = symbols.len();
        for i in 0..length - 1 {
            pairs[i] = self.get(symbols[i], symbols[i + 1]);
        }
        while length > 1 {
            let (mut best, mut at) = (NONE, 0);
            for (i, &(rank, _)) in pairs[..length - 1].iter().enumerate() {
                if rank < best {
                    (best, at) = (rank, i);
                }
            }
            if best == NONE {
                break;
            }
            symbols[at] = pairs[at].1;
            symbols.copy_within(at + 2..length, at + 1);
            pairs.copy_within(at + 1..length - 1, at);
            length -= 1;
            if at > 0 {
                pairs[at - 1] = self.get(symbols[at - 1], symbols[at]);
            }
            if at + 1 < length {
                pairs[at] = self.get(symbols[at], symbols[at + 1]);
            }
        }
        symbols.truncate(length);
    }

    fn merge_by_heap(&self, symbols: &mut Vec<u32>, work: &mut MergeWork) {
        let length = symbols.len();
        let MergeWork { heap, previous, next } = work;
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

/// Room that merging long pre-tokens uses again and again.
#[derive(Debug, Default)]
pub struct MergeWork {
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
                merges.push((draw(u64::from(i) * 2, known), draw(u64::from(i) * 2 + 1, known), 4 + i));
            }
            let table = MergeTable::new(&merges);
            let symbols: Vec<u32> = (0..SCAN_LIMIT as u64).map(|i| draw(1000 + i, 4)).collect();
            let (mut scanned, mut heaped) = (symbols.clone(), symbols);
            table.merge_by_scan(&mut scanned);
            table.merge_by_heap(&mut heaped, &mut MergeWork::default());
            assert_eq!(scanned, heaped, "{seed}");
        }
    }
}
