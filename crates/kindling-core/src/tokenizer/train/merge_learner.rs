//! Learning merges from the counts of pre-tokens.
//!
//! ```text
//! words = distinct pre-tokens as lists of bytes, with their counts
//! count every pair of adjacent tokens, and list the words that hold it       pair_table.rs
//! until the vocabulary is full:
//!     (a, b) = the most frequent pair; ties go to the greater pair of byte strings
//!     c = a new token for a + b
//!     for each word that holds (a, b):
//!         replace a b by c; for each neighbor x: note that (x, c) or (c, x) is gained
//!     for each neighbor x: add (x, c), subtract (x, a); add (c, x), subtract (b, x)
//! ```
//!
//! 1. A merge only visits the words that hold its pair, so its cost falls as pairs get rarer.
//! 2. Gains and losses are summed per neighbor over all words, in an array indexed by token id. So
//!    the hash table is updated once per neighbor instead of once per occurrence.
//! 3. The most frequent pair is at the top of a heap. Counts in the heap are not updated. A count
//!    can only fall, except for pairs with the new token, which are pushed; an entry that is popped
//!    with too high a count is pushed back with the right one.
//! 4. Breaking ties by bytes makes the result independent of the order of the words, and thus of
//!    threads.

use std::cmp::Ordering;
use std::collections::HashSet;

use rustc_hash::FxHashMap;

use super::counts::Counts;
use super::pair_table::{NONE, Pair, PairTable};
use crate::host_memory::reserve_or_panic;
use crate::tokenizer::files::byte_chars;
use crate::tokenizer::parts::Merge;

/// A pre-token as a range of `MergeLearner::symbols`, and its count.
#[derive(Debug, Clone, Copy)]
struct Word {
    start: usize,
    length: u32,
    count: u64,
}

/// The pair of a neighbor and the new token: its count, and the list of its words.
#[derive(Debug, Clone, Copy)]
struct Neighbor {
    count: u64,
    words: u32,
}

const NO_NEIGHBOR: Neighbor = Neighbor { count: 0, words: NONE };

/// Neighbors on one side of the new token.
#[derive(Debug, Default)]
struct Side {
    /// Indexed by token id.
    neighbors: Vec<Neighbor>,
    /// Ids of the neighbors that occur.
    seen: Vec<u32>,
}

impl Side {
    #[inline]
    fn add(&mut self, token: u32, word: u32, count: u64, pairs: &mut PairTable) {
        let neighbor = &mut self.neighbors[token as usize];
        if neighbor.count == 0 {
            self.seen.push(token);
        }
        neighbor.count += count;
        if pairs.lists.first(neighbor.words) != Some(word) {
            neighbor.words = pairs.lists.push(neighbor.words, word);
        }
    }

    fn iter(&self) -> impl Iterator<Item = (u32, Neighbor)> {
        self.seen.iter().map(|&token| (token, self.neighbors[token as usize]))
    }

    fn clear(&mut self) {
        for token in self.seen.drain(..) {
            self.neighbors[token as usize] = NO_NEIGHBOR;
        }
    }
}

/// Learns merges one by one.
#[derive(Debug)]
pub struct MergeLearner {
    tokens: Vec<Box<[u8]>>,
    ids: FxHashMap<Box<[u8]>, u32>,
    merges: Vec<Merge>,
    /// Texts of special tokens. vocab.json could not distinguish a merged token with such a text
    /// from the special token.
    reserved: HashSet<String>,
    /// Tokens of all words, one word after another.
    symbols: Vec<u32>,
    words: Vec<Word>,
    pairs: PairTable,
    heap: Heap,
    /// Neighbors of the current merge.
    before: Side,
    after: Side,
    /// Words that hold the pair of the current merge.
    touched: Vec<u32>,
}

impl MergeLearner {
    /// Starts learning. `tokens` are the special tokens and, from id `first_byte` on, the 256 bytes
    /// in `BYTE_ORDER`; `counts` are those of the pre-tokens.
    pub fn new(
        tokens: Vec<Box<[u8]>>,
        first_byte: u32,
        reserved: HashSet<String>,
        counts: &Counts,
    ) -> Self {
        let ids: FxHashMap<Box<[u8]>, u32> =
            tokens.iter().cloned().zip(0..).skip(first_byte as usize).collect();
        let mut byte_ids = [0; 256];
        for (&byte, id) in byte_chars::BYTE_ORDER.iter().zip(first_byte..) {
            byte_ids[usize::from(byte)] = id;
        }
        let mut learner = Self {
            tokens,
            ids,
            merges: Vec::new(),
            reserved,
            symbols: Vec::new(),
            words: Vec::new(),
            pairs: PairTable::new(),
            heap: Heap::default(),
            before: Side::default(),
            after: Side::default(),
            touched: Vec::new(),
        };
        counts.for_each(|pretoken, count| {
            if pretoken.len() > 1 {
                let start = learner.symbols.len();
                reserve_or_panic(&mut learner.symbols, pretoken.len());
                reserve_or_panic(&mut learner.words, 1);
                learner.symbols.extend(pretoken.iter().map(|&byte| byte_ids[usize::from(byte)]));
                learner.words.push(Word { start, length: pretoken.len() as u32, count });
            }
        });
        learner.count_pairs();
        learner
    }

    fn count_pairs(&mut self) {
        for (word, index) in self.words.iter().zip(0u32..) {
            let symbols = &self.symbols[word.start..word.start + word.length as usize];
            for pair in symbols.windows(2) {
                self.pairs.add_word((pair[0], pair[1]), word.count, index);
            }
        }
        let mut candidates = Vec::new();
        for (pair, count) in self.pairs.iter() {
            reserve_or_panic(&mut candidates, 1);
            candidates.push(Candidate { count, pair });
        }
        self.heap = Heap::from_candidates(candidates, &self.tokens);
    }

    /// Returns the number of tokens so far.
    pub fn vocab_size(&self) -> usize {
        self.tokens.len()
    }

    /// Returns the tokens and merges.
    pub fn into_parts(self) -> (Vec<Box<[u8]>>, Vec<Merge>) {
        (self.tokens, self.merges)
    }

    /// Learns the next merge. Returns false if no pair occurs at least `min_frequency` times.
    ///
    /// A pair whose text would be that of a special token is dropped instead.
    pub fn merge_next(&mut self, min_frequency: u64) -> bool {
        let Some(pair) = self.pop_best(min_frequency) else { return false };
        let mut touched = std::mem::take(&mut self.touched);
        touched.clear();
        self.pairs.take(pair, &mut touched);
        let bytes = [&self.tokens[pair.0 as usize][..], &self.tokens[pair.1 as usize][..]].concat();
        if !self.reserved.contains(&byte_chars::to_text(&bytes)) {
            // Pairs with the same bytes become the same token, since vocab.json has one entry for
            // both.
            let next = self.tokens.len() as u32;
            let result = *self.ids.entry(bytes.clone().into_boxed_slice()).or_insert(next);
            if result == next {
                self.tokens.push(bytes.into_boxed_slice());
            }
            self.merges.push((pair.0, pair.1, result));
            for side in [&mut self.before, &mut self.after] {
                side.neighbors.resize(self.tokens.len(), NO_NEIGHBOR);
            }
            for &word in &touched {
                self.merge_in_word(word, pair, result);
            }
            self.update_neighbors(pair, result);
        }
        self.touched = touched;
        true
    }

    /// Removes the best candidate from the heap and returns its pair.
    fn pop_best(&mut self, min_frequency: u64) -> Option<Pair> {
        loop {
            let candidate = self.heap.pop(&self.tokens)?;
            let count = self.pairs.count(candidate.pair);
            if count == candidate.count {
                return (count >= min_frequency).then_some(candidate.pair);
            }
            if (1..candidate.count).contains(&count) {
                self.heap.push(Candidate { count, ..candidate }, &self.tokens);
            }
        }
    }

    /// Merges the pair wherever it occurs in a word, and notes the neighbors of the new token.
    fn merge_in_word(&mut self, index: u32, pair: Pair, result: u32) {
        let word = &mut self.words[index as usize];
        let symbols = &mut self.symbols[word.start..word.start + word.length as usize];
        let (mut read, mut written) = (0, 0);
        while read < symbols.len() {
            let is_pair = symbols[read] == pair.0 && symbols.get(read + 1) == Some(&pair.1);
            if !is_pair {
                symbols[written] = symbols[read];
                read += 1;
                written += 1;
                continue;
            }
            if written > 0 {
                self.before.add(symbols[written - 1], index, word.count, &mut self.pairs);
            }
            if let Some(&after) = symbols.get(read + 2) {
                self.after.add(after, index, word.count, &mut self.pairs);
            }
            symbols[written] = result;
            read += 2;
            written += 1;
        }
        word.length = written as u32;
    }

    /// Updates the counts of pairs with the neighbors: each gained a pair with the new token and
    /// lost one with a token of the merged pair.
    fn update_neighbors(&mut self, pair: Pair, result: u32) {
        let Self { before, after, pairs, heap, tokens, .. } = self;
        let gained_before = before.iter().map(|(token, neighbor)| ((token, result), neighbor));
        let gained_after = after.iter().map(|(token, neighbor)| ((result, token), neighbor));
        for (gained, neighbor) in gained_before.chain(gained_after) {
            pairs.add(gained, neighbor.count, neighbor.words);
        }
        // `take` has removed the pair itself from the table, overlapping occurrences included.
        let lost_before = before.iter().map(|(token, neighbor)| ((token, pair.0), neighbor));
        let lost_after = after.iter().map(|(token, neighbor)| ((pair.1, token), neighbor));
        for (lost, neighbor) in lost_before.chain(lost_after).filter(|(lost, _)| *lost != pair) {
            pairs.subtract(lost, neighbor.count);
        }
        // A pair gained at one occurrence may be lost at the next, so the counts are final only
        // now.
        let gained_before = before.iter().map(|(token, _)| (token, result));
        let gained_after = after.iter().map(|(token, _)| (result, token));
        for pair in gained_before.chain(gained_after) {
            let count = pairs.count(pair);
            if count > 0 {
                heap.push(Candidate { count, pair }, tokens);
            }
        }
        before.clear();
        after.clear();
    }
}

#[derive(Debug, Clone, Copy)]
struct Candidate {
    count: u64,
    pair: Pair,
}

/// A binary heap with the best candidate at the top. Comparing needs the bytes of the tokens, which
/// `std::collections::BinaryHeap` cannot pass along.
#[derive(Debug, Default)]
struct Heap {
    candidates: Vec<Candidate>,
}

impl Heap {
    fn from_candidates(candidates: Vec<Candidate>, tokens: &[Box<[u8]>]) -> Self {
        let mut heap = Self { candidates };
        for at in (0..heap.candidates.len() / 2).rev() {
            heap.sift_down(at, tokens);
        }
        heap
    }

    fn is_better(&self, a: usize, b: usize, tokens: &[Box<[u8]>]) -> bool {
        let (a, b) = (&self.candidates[a], &self.candidates[b]);
        let bytes = |pair: Pair| (&tokens[pair.0 as usize], &tokens[pair.1 as usize]);
        a.count.cmp(&b.count).then_with(|| bytes(a.pair).cmp(&bytes(b.pair))) == Ordering::Greater
    }

    fn push(&mut self, candidate: Candidate, tokens: &[Box<[u8]>]) {
        let mut at = self.candidates.len();
        self.candidates.push(candidate);
        while at > 0 && self.is_better(at, (at - 1) / 2, tokens) {
            self.candidates.swap(at, (at - 1) / 2);
            at = (at - 1) / 2;
        }
    }

    fn pop(&mut self, tokens: &[Box<[u8]>]) -> Option<Candidate> {
        if self.candidates.is_empty() {
            return None;
        }
        let best = self.candidates.swap_remove(0);
        self.sift_down(0, tokens);
        Some(best)
    }

    fn sift_down(&mut self, mut at: usize, tokens: &[Box<[u8]>]) {
        loop {
            let mut best = at;
            for child in [at * 2 + 1, at * 2 + 2] {
                if child < self.candidates.len() && self.is_better(child, best, tokens) {
                    best = child;
                }
            }
            if best == at {
                return;
            }
            self.candidates.swap(at, best);
            at = best;
        }
    }
}
