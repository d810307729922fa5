//! Pairs of tokens with their counts and the words they occur in.
//!
//! The words of all pairs are linked lists in one pool of nodes, so lists grow, join and are freed
//! without an allocation per pair, of which there are millions.

use crate::host_memory::{filled_or_panic, reserve_or_panic};

/// No node, or no list.
pub const NONE: u32 = u32::MAX;
/// Key of a free entry.
const FREE_KEY: u64 = u64::MAX;

/// Two adjacent tokens.
pub type Pair = (u32, u32);

/// A pair that has occurred. It stays in the table when its count falls to 0.
#[derive(Debug, Clone, Copy)]
struct PairEntry {
    key: u64,
    count: u64,
    /// List of its words.
    words: u32,
}

const FREE: PairEntry = PairEntry { key: FREE_KEY, count: 0, words: NONE };

fn key(pair: Pair) -> u64 {
    u64::from(pair.0) << 32 | u64::from(pair.1)
}

/// Lists of words, each identified by its first node. A list may still contain words that no longer
/// hold its pair.
#[derive(Debug)]
pub struct Lists {
    /// Word and next node.
    nodes: Vec<(u32, u32)>,
    /// List of unused nodes.
    free: u32,
}

impl Lists {
    /// Prepends `word` to a list; returns the new list.
    #[inline]
    pub fn push(&mut self, list: u32, word: u32) -> u32 {
        if self.free == NONE {
            reserve_or_panic(&mut self.nodes, 1);
            self.nodes.push((word, list));
            return self.nodes.len() as u32 - 1;
        }
        let node = self.free;
        self.free = self.nodes[node as usize].1;
        self.nodes[node as usize] = (word, list);
        node
    }

    /// Returns the first word of a list.
    #[inline]
    pub fn first(&self, list: u32) -> Option<u32> {
        self.nodes.get(list as usize).map(|node| node.0)
    }

    /// Prepends the list `front` to `list`; returns the new list.
    fn join(&mut self, list: u32, front: u32) -> u32 {
        if list == NONE || front == NONE {
            return if front == NONE { list } else { front };
        }
        let mut last = front;
        while self.nodes[last as usize].1 != NONE {
            last = self.nodes[last as usize].1;
        }
        self.nodes[last as usize].1 = list;
        front
    }

    /// Moves the words of a list to `words` and frees its nodes.
    fn take(&mut self, list: u32, words: &mut Vec<u32>) {
        let mut at = list;
        while at != NONE {
            let (word, next) = self.nodes[at as usize];
            reserve_or_panic(words, 1);
            words.push(word);
            self.nodes[at as usize].1 = self.free;
            self.free = at;
            at = next;
        }
    }
}

/// Table of pairs: open addressing, at most half full.
#[derive(Debug)]
pub struct PairTable {
    entries: Vec<PairEntry>,
    used: usize,
    /// The words of all pairs.
    pub lists: Lists,
}

impl PairTable {
    pub fn new() -> Self {
        let lists = Lists { nodes: Vec::new(), free: NONE };
        Self { entries: filled_or_panic(FREE, 1 << 16), used: 0, lists }
    }

    /// Returns the index of the entry of `key`, or of the free entry where it belongs.
    #[inline]
    fn find(&self, key: u64) -> usize {
        let mask = self.entries.len() - 1;
        let hash = key.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let mut at = (hash >> (64 - self.entries.len().trailing_zeros())) as usize;
        while self.entries[at].key != key && self.entries[at].key != FREE_KEY {
            at = (at + 1) & mask;
        }
        at
    }

    /// Returns how often a pair occurs.
    pub fn count(&self, pair: Pair) -> u64 {
        self.entries[self.find(key(pair))].count
    }

    /// Adds `count` occurrences of a pair in the list `words`.
    pub fn add(&mut self, pair: Pair, count: u64, words: u32) {
        let mut index = self.find(key(pair));
        if self.entries[index].key == FREE_KEY {
            self.used += 1;
            if self.used * 2 > self.entries.len() {
                self.grow();
                index = self.find(key(pair));
            }
            self.entries[index].key = key(pair);
        }
        let entry = &mut self.entries[index];
        entry.count += count;
        entry.words = self.lists.join(entry.words, words);
    }

    /// Adds `count` occurrences of a pair in one word. Words must come in ascending order.
    pub fn add_word(&mut self, pair: Pair, count: u64, word: u32) {
        let words = self.entries[self.find(key(pair))].words;
        let known = words != NONE && self.lists.first(words) == Some(word);
        let new = if known { NONE } else { self.lists.push(NONE, word) };
        self.add(pair, count, new);
    }

    /// Subtracts occurrences of a pair, down to 0. Words may still hold a pair that was taken.
    pub fn subtract(&mut self, pair: Pair, count: u64) {
        let index = self.find(key(pair));
        let entry = &mut self.entries[index];
        entry.count = entry.count.saturating_sub(count);
    }

    /// Removes all occurrences of a pair and moves the words of its list to `words`.
    pub fn take(&mut self, pair: Pair, words: &mut Vec<u32>) {
        let index = self.find(key(pair));
        let list = std::mem::replace(&mut self.entries[index].words, NONE);
        self.entries[index].count = 0;
        self.lists.take(list, words);
    }

    /// Iterates over the pairs that occur, with their counts.
    pub fn iter(&self) -> impl Iterator<Item = (Pair, u64)> + '_ {
        let occurs = |entry: &&PairEntry| entry.count > 0;
        self.entries
            .iter()
            .filter(occurs)
            .map(|entry| (((entry.key >> 32) as u32, entry.key as u32), entry.count))
    }

    /// Drops pairs that no longer occur, and doubles the table unless that frees enough entries.
    #[cold]
    fn grow(&mut self) {
        let live = self.entries.iter().filter(|entry| entry.count > 0).count();
        let length =
            if live * 4 > self.entries.len() { self.entries.len() * 2 } else { self.entries.len() };
        let old = std::mem::replace(&mut self.entries, filled_or_panic(FREE, length));
        self.used = live + 1;
        for entry in old {
            if entry.count > 0 {
                let index = self.find(entry.key);
                self.entries[index] = entry;
            } else if entry.words != NONE {
                self.lists.take(entry.words, &mut Vec::new());
            }
        }
    }
}
