//! Learning merges from counted pre-tokens: the most frequent pair wins, ties go to the greater pair of byte strings.
//!
//! Counts are kept up to date: a merge touches only the words that hold its pair. Candidates wait in a heap; an entry whose
//! count has changed since is put back with the right one when it comes up (counts of a pair only fall, but for the pairs
//! that the merge at work makes).

use std::cmp::Ordering;
use std::collections::HashSet;

use rustc_hash::FxHashMap;

use super::byte_chars;

type Pair = (u32, u32);
/// The two tokens of a merge and the token they make.
type Merge = (u32, u32, u32);

/// A pair's count and the words it stands in (or stood in: a word may have lost it since).
#[derive(Debug, Default)]
struct Occurrences {
    count: u64,
    words: Vec<u32>,
}

/// A pre-token as the tokens it consists of, and how often it occurs.
#[derive(Debug)]
struct Word {
    start: usize,
    length: u32,
    count: u64,
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
    pairs: FxHashMap<Pair, Occurrences>,
    heap: Heap,
}

impl MergeLearner {
    /// `tokens`: special tokens, then from id `first_byte` the 256 bytes in `BYTE_ORDER`. `counts`: distinct pre-tokens.
    pub fn new(
        tokens: Vec<Box<[u8]>>,
        first_byte: u32,
        reserved: HashSet<String>,
        counts: impl IntoIterator<Item = (Box<[u8]>, u64)>,
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
            pairs: FxHashMap::default(),
            heap: Heap::default(),
        };
        for (pretoken, count) in counts {
            if pretoken.len() > 1 {
                let start = learner.symbols.len();
                learner.symbols.extend(pretoken.iter().map(|&byte| byte_ids[usize::from(byte)]));
                learner.words.push(Word { start, length: pretoken.len() as u32, count });
            }
        }
        learner.count_pairs();
        learner
    }

    fn count_pairs(&mut self) {
        for (word, index) in self.words.iter().zip(0u32..) {
            let symbols = &self.symbols[word.start..word.start + word.length as usize];
            for pair in symbols.windows(2) {
                add(&mut self.pairs, (pair[0], pair[1]), word.count, index);
            }
        }
        let entries = self.pairs.iter().map(|(&pair, occurrences)| Entry { count: occurrences.count, pair });
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

    /// Makes the next merge; false where no pair is left.
    pub fn merge_next(&mut self) -> bool {
        let Some(pair) = self.pop_best() else { return false };
        let bytes = [&self.tokens[pair.0 as usize][..], &self.tokens[pair.1 as usize][..]].concat();
        if self.reserved.contains(&byte_chars::to_text(&bytes)) {
            self.pairs.remove(&pair);
            return true;
        }
        // Two pairs may give the same bytes; they are one token then, as they are one entry of vocab.json.
        let next = self.tokens.len() as u32;
        let result = *self.ids.entry(bytes.clone().into_boxed_slice()).or_insert(next);
        if result == next {
            self.tokens.push(bytes.into_boxed_slice());
        }
        self.merges.push((pair.0, pair.1, result));
        let words = self.pairs.remove(&pair).map(|occurrences| occurrences.words).unwrap_or_default();
        let mut grown: Vec<Pair> = Vec::new();
        for index in words {
            self.merge_in_word(index, pair, result, &mut grown);
        }
        grown.sort_unstable();
        grown.dedup();
        for pair in grown {
            // A pair made by one match of the merge and taken by the next is gone already.
            if let Some(occurrences) = self.pairs.get(&pair).filter(|occurrences| occurrences.count > 0) {
                self.heap.push(Entry { count: occurrences.count, pair }, &self.tokens);
            } else {
                self.pairs.remove(&pair);
            }
        }
        true
    }

    /// The pair to merge next, with its entry taken off the heap.
    fn pop_best(&mut self) -> Option<Pair> {
        loop {
            let entry = self.heap.pop(&self.tokens)?;
            let Some(occurrences) = self.pairs.get(&entry.pair) else { continue };
            if occurrences.count == entry.count {
                return Some(entry.pair);
            }
            if occurrences.count == 0 {
                self.pairs.remove(&entry.pair);
            } else if occurrences.count < entry.count {
                self.heap.push(Entry { count: occurrences.count, pair: entry.pair }, &self.tokens);
            }
        }
    }

    fn merge_in_word(&mut self, index: u32, pair: Pair, result: u32, grown: &mut Vec<Pair>) {
        let word = &mut self.words[index as usize];
        let symbols = &mut self.symbols[word.start..word.start + word.length as usize];
        let (mut read, mut written) = (0, 0);
        while read < symbols.len() {
            let is_pair = read + 1 < symbols.len() && (symbols[read], symbols[read + 1]) == pair;
            if !is_pair {
                symbols[written] = symbols[read];
                read += 1;
                written += 1;
                continue;
            }
            if written > 0 {
                let before = symbols[written - 1];
                subtract(&mut self.pairs, (before, pair.0), word.count);
                add(&mut self.pairs, (before, result), word.count, index);
                grown.push((before, result));
            }
            if let Some(&after) = symbols.get(read + 2) {
                subtract(&mut self.pairs, (pair.1, after), word.count);
                add(&mut self.pairs, (result, after), word.count, index);
                grown.push((result, after));
            }
            symbols[written] = result;
            read += 2;
            written += 1;
        }
        word.length = written as u32;
    }
}

fn add(pairs: &mut FxHashMap<Pair, Occurrences>, pair: Pair, count: u64, word: u32) {
    let occurrences = pairs.entry(pair).or_default();
    occurrences.count += count;
    if occurrences.words.last() != Some(&word) {
        occurrences.words.push(word);
    }
}

fn subtract(pairs: &mut FxHashMap<Pair, Occurrences>, pair: Pair, count: u64) {
    // The pair being merged has left the table already.
    if let Some(occurrences) = pairs.get_mut(&pair) {
        occurrences.count -= count;
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
