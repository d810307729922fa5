//! Learning merges from counted pre-tokens: the most frequent pair wins, ties go to the greater pair of byte strings.
//!
//! Counts are kept up to date: a merge touches only the words that hold its pair. Candidates wait in a heap; an entry whose
//! count has changed since is put back with the right one when it comes up (counts of a pair only fall, but for the pairs
//! that the merge at work makes).

use std::cmp::Ordering;
use std::collections::HashSet;

use rustc_hash::FxHashMap;

use super::counts::Counts;
use super::pair_table::{NONE, Pair, PairTable};
use crate::tokenizer::files::byte_chars;

/// The two tokens of a merge and the token they make.
type Merge = (u32, u32, u32);

/// A pre-token as the tokens it consists of, and how often it occurs.
#[derive(Debug, Clone, Copy)]
struct Word {
    start: usize,
    length: u32,
    count: u64,
}

/// What the merge at work adds beside one token: how often its result stands next to it, and in which words.
#[derive(Debug, Clone, Copy)]
struct Neighbour {
    count: u64,
    list: u32,
}

const NO_NEIGHBOUR: Neighbour = Neighbour { count: 0, list: NONE };

/// The tokens on one side of the merge at work, by id.
#[derive(Debug, Default)]
struct Side {
    neighbours: Vec<Neighbour>,
    seen: Vec<u32>,
}

impl Side {
    #[inline]
    fn add(&mut self, token: u32, word: u32, count: u64, pairs: &mut PairTable) {
        let neighbour = &mut self.neighbours[token as usize];
        if neighbour.count == 0 {
            self.seen.push(token);
        }
        neighbour.count += count;
        if pairs.lists.first(neighbour.list) != Some(word) {
            neighbour.list = pairs.lists.push(neighbour.list, word);
        }
    }
}

/// The state of learning.
#[derive(Debug)]
pub struct MergeLearner {
    tokens: Vec<Box<[u8]>>,
    ids: FxHashMap<Box<[u8]>, u32>,
    merges: Vec<Merge>,
    /// Special tokens' texts: no merge may be written as one of them is.
    reserved: HashSet<String>,
    /// All words' tokens, one after the other.
    symbols: Vec<u32>,
    words: Vec<Word>,
    pairs: PairTable,
    heap: Heap,
    before: Side,
    after: Side,
    /// Words of the merge at work.
    touched: Vec<u32>,
}

impl MergeLearner {
    /// `tokens`: special tokens, then from id `first_byte` the 256 bytes in `BYTE_ORDER`. `counts`: distinct pre-tokens.
    pub fn new(
        tokens: Vec<Box<[u8]>>,
        first_byte: u32,
        reserved: HashSet<String>,
        counts: &Counts,
    ) -> Self {
        let ids: FxHashMap<_, _> = tokens
            .iter()
            .cloned()
            .zip(0..)
            .skip(first_byte as usize)
            .map(|(token, id): (Box<[u8]>, u32)| (token, id))
            .collect();
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
        let entries = self.pairs.iter().map(|(pair, count)| Entry { count, pair });
        self.heap = Heap::from_entries(entries.collect(), &self.tokens);
    }

    /// Tokens so far.
    pub fn vocab_size(&self) -> usize {
        self.tokens.len()
    }

    /// Tokens and merges.
    pub fn into_parts(self) -> (Vec<Box<[u8]>>, Vec<Merge>) {
        (self.tokens, self.merges)
    }

    /// Makes the next merge; false where no pair occurs `min_frequency` times.
    pub fn merge_next(&mut self, min_frequency: u64) -> bool {
        let Some(pair) = self.pop_best(min_frequency) else { return false };
        let mut touched = std::mem::take(&mut self.touched);
        touched.clear();
        self.pairs.take(pair, &mut touched);
        let bytes = [&self.tokens[pair.0 as usize][..], &self.tokens[pair.1 as usize][..]].concat();
        if !self.reserved.contains(&byte_chars::to_text(&bytes)) {
            // Two pairs may give the same bytes; they are one token then, as they are one entry of vocab.json.
            let next = self.tokens.len() as u32;
            let result = *self.ids.entry(bytes.clone().into_boxed_slice()).or_insert(next);
            if result == next {
                self.tokens.push(bytes.into_boxed_slice());
            }
            self.merges.push((pair.0, pair.1, result));
            for side in [&mut self.before, &mut self.after] {
                side.neighbours.resize(self.tokens.len(), NO_NEIGHBOUR);
            }
            for &word in &touched {
                self.merge_in_word(word, pair, result);
            }
            self.count_neighbours(pair, result);
        }
        self.touched = touched;
        true
    }

    /// The pair to merge next, with its entry taken off the heap.
    fn pop_best(&mut self, min_frequency: u64) -> Option<Pair> {
        loop {
            let entry = self.heap.pop(&self.tokens)?;
            let count = self.pairs.count(entry.pair);
            if count == entry.count {
                return (count >= min_frequency).then_some(entry.pair);
            }
            if (1..entry.count).contains(&count) {
                self.heap.push(Entry { count, pair: entry.pair }, &self.tokens);
            }
        }
    }

    /// Merges the pair wherever it stands in a word, and notes what stands next to it.
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

    /// Enters what `merge_in_word` noted: each neighbour has lost a pair with the merge's tokens and won one with its result.
    fn count_neighbours(&mut self, pair: Pair, result: u32) {
        let won_before = self
            .before
            .seen
            .iter()
            .map(|&token| ((token, result), self.before.neighbours[token as usize]));
        let won_after = self
            .after
            .seen
            .iter()
            .map(|&token| ((result, token), self.after.neighbours[token as usize]));
        for (won, neighbour) in won_before.chain(won_after) {
            self.pairs.add(won, neighbour.count, neighbour.list);
        }
        // The pair itself has left the table already, with its occurrences that overlap.
        let lost_before = self
            .before
            .seen
            .iter()
            .map(|&token| ((token, pair.0), self.before.neighbours[token as usize]));
        let lost_after = self
            .after
            .seen
            .iter()
            .map(|&token| ((pair.1, token), self.after.neighbours[token as usize]));
        for (lost, neighbour) in lost_before.chain(lost_after).filter(|(lost, _)| *lost != pair) {
            self.pairs.subtract(lost, neighbour.count);
        }
        // What was won by one match of the merge may be lost by the next, so counts are final only now.
        let won_before = self.before.seen.iter().map(|&token| (token, result));
        let won_after = self.after.seen.iter().map(|&token| (result, token));
        for pair in won_before.chain(won_after) {
            let count = self.pairs.count(pair);
            if count > 0 {
                self.heap.push(Entry { count, pair }, &self.tokens);
            }
        }
        for side in [&mut self.before, &mut self.after] {
            for token in side.seen.drain(..) {
                side.neighbours[token as usize] = NO_NEIGHBOUR;
            }
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    count: u64,
    pair: Pair,
}

/// A binary heap, the best candidate first. Its order needs the tokens' bytes, which std's heap has no way to see.
#[derive(Debug, Default)]
struct Heap {
    entries: Vec<Entry>,
}

impl Heap {
    fn from_entries(entries: Vec<Entry>, tokens: &[Box<[u8]>]) -> Self {
        let mut heap = Self { entries };
        for at in (0..heap.entries.len() / 2).rev() {
            heap.sink(at, tokens);
        }
        heap
    }

    fn is_better(&self, a: usize, b: usize, tokens: &[Box<[u8]>]) -> bool {
        let (a, b) = (&self.entries[a], &self.entries[b]);
        let bytes = |pair: Pair| (&tokens[pair.0 as usize], &tokens[pair.1 as usize]);
        a.count.cmp(&b.count).then_with(|| bytes(a.pair).cmp(&bytes(b.pair))) == Ordering::Greater
    }

    fn push(&mut self, entry: Entry, tokens: &[Box<[u8]>]) {
        let mut at = self.entries.len();
        self.entries.push(entry);
        while at > 0 && self.is_better(at, (at - 1) / 2, tokens) {
            self.entries.swap(at, (at - 1) / 2);
            at = (at - 1) / 2;
        }
    }

    fn pop(&mut self, tokens: &[Box<[u8]>]) -> Option<Entry> {
        if self.entries.is_empty() {
            return None;
        }
        let best = self.entries.swap_remove(0);
        self.sink(0, tokens);
        Some(best)
    }

    fn sink(&mut self, mut at: usize, tokens: &[Box<[u8]>]) {
        loop {
            let mut best = at;
            for child in [at * 2 + 1, at * 2 + 2] {
                if child < self.entries.len() && self.is_better(child, best, tokens) {
                    best = child;
                }
            }
            if best == at {
                return;
            }
            self.entries.swap(at, best);
            at = best;
        }
    }
}
