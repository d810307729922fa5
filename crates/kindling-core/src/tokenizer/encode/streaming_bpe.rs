//! BPE from left to right, in memory that does not depend on the length of the pre-token.
//!
//! Merging by rank needs the whole pre-token. The same ids can be found from left to right:
//!
//! 1. A sequence of tokens is the result of merging its bytes if and only if every two adjacent
//!    tokens are the result of merging theirs. The first merge across the border between two tokens
//!    would also happen with these two alone, since no earlier merge touches them.
//! 2. So the result for the first i bytes ends in some token, `last[i]`, and without that token it
//!    is the result for the bytes before it. `last[i]` is the only token that ends at i and is
//!    compatible (as in 1) with the last token at its own start.
//! 3. The ids of the first n bytes are the chain `last[n]`, `last[n - length of last[n]]`, ...
//!    backwards. A token that ends after n starts after n - (length of the longest token), and the
//!    chains from all positions in between soon meet. Ids before the point where they meet are
//!    final, so they are flushed and forgotten.
//!
//! ```text
//! last[0] = none
//! for at in 0..n:
//!     for each token that starts at `at` (a walk down the trie of all tokens):
//!         if compatible(last[at], token): last[at + length of token] = token
//!     every STEP bytes: flush the ids before the point where all chains meet
//! ```
//!
//! The idea of last tokens is that of the `bpe` crate (<https://github.com/github/rust-gems>). By 1
//! it holds for any list of merges, not only where the ranks of merges and tokens agree.

use std::collections::BTreeSet;

use rustc_hash::FxHashMap;

use super::merge::MergeScratch;
use super::scratch::Scratch;
use super::{Encoder, NO_ID};
use crate::Result;
use crate::tokenizer::parts::Merge;

/// Longest pre-token that is merged as a whole, in bytes.
const WHOLE_LIMIT: usize = 1 << 20;
/// Bytes between two flushes.
const STEP: usize = 1 << 16;
/// Maximum number of pairs whose compatibility is remembered.
const KNOWN_PAIRS: usize = 1 << 20;

/// A trie of tokens by their bytes.
struct Trie {
    /// Map from (node, byte) to the next node; the root is 0.
    nodes: FxHashMap<u64, u32>,
    /// The token that ends at each node, or `NO_ID`.
    tokens: Vec<u32>,
    /// Length of the longest token in bytes.
    longest: usize,
}

impl Trie {
    /// Builds the trie; returns `None` if two tokens have the same bytes.
    fn new<'a>(tokens: impl Iterator<Item = (u32, &'a [u8])>) -> Option<Self> {
        let mut trie = Self { nodes: FxHashMap::default(), tokens: vec![NO_ID], longest: 0 };
        for (id, bytes) in tokens {
            let mut node = 0;
            for &byte in bytes {
                let next = trie.tokens.len() as u32;
                node = *trie.nodes.entry(Self::edge(node, byte)).or_insert(next);
                if node == next {
                    trie.tokens.push(NO_ID);
                }
            }
            let token = &mut trie.tokens[node as usize];
            if *token != NO_ID && *token != id {
                return None;
            }
            *token = id;
            trie.longest = trie.longest.max(bytes.len());
        }
        Some(trie)
    }

    fn edge(node: u32, byte: u8) -> u64 {
        u64::from(node) << 8 | u64::from(byte)
    }

    fn next(&self, node: u32, byte: u8) -> Option<u32> {
        self.nodes.get(&Self::edge(node, byte)).copied()
    }
}

/// Decides, and remembers, which tokens can be adjacent.
struct Compatibility<'a> {
    encoder: &'a Encoder,
    known: FxHashMap<u64, bool>,
    bytes: Vec<u8>,
    symbols: Vec<u32>,
    scratch: MergeScratch,
}

impl Compatibility<'_> {
    /// Returns whether merging the bytes of `left` and `right` results in these two tokens, or, if
    /// `left` is `NO_ID`, whether merging the bytes of `right` results in that token.
    fn check(&mut self, left: u32, right: u32) -> bool {
        let key = u64::from(left) << 32 | u64::from(right);
        if let Some(&known) = self.known.get(&key) {
            return known;
        }
        let Self { encoder, bytes, symbols, scratch, .. } = self;
        bytes.clear();
        let ids = [left, right];
        let expected = if left == NO_ID { &ids[1..] } else { &ids };
        for &id in expected {
            bytes.extend_from_slice(&encoder.parts.tokens[id as usize]);
        }
        encoder.merge_bytes(bytes, symbols, scratch);
        let compatible = symbols == expected;
        if self.known.len() >= KNOWN_PAIRS {
            self.known.clear();
        }
        self.known.insert(key, compatible);
        compatible
    }
}

impl Encoder {
    /// Encodes the pre-tokens between consecutive `starts`, up to the last one that is longer than
    /// `WHOLE_LIMIT`, and removes their starts.
    pub(super) fn encode_long_pretokens(
        &self,
        text: &str,
        starts: &mut Vec<usize>,
        scratch: &mut Scratch,
        ids: &mut Vec<u32>,
        flush: &mut impl FnMut(&mut Vec<u32>, usize) -> Result<()>,
    ) -> Result<()> {
        if text.len() <= WHOLE_LIMIT {
            return Ok(());
        }
        let is_long = |bounds: &[usize]| bounds[1] - bounds[0] > WHOLE_LIMIT;
        while let Some(long) = starts.windows(2).position(is_long) {
            let Some(trie) = self.trie() else { return Ok(()) };
            self.encode_pretokens(text, &starts[..=long], scratch, ids)?;
            let (start, end) = (starts[long], starts[long + 1]);
            self.encode_from_left(&text[start..end], &trie, ids, &mut |ids, at| {
                flush(ids, start + at)
            })?;
            starts.drain(..=long);
        }
        Ok(())
    }

    /// Builds the trie of all tokens that merging can produce.
    ///
    /// Returns `None` if the bytes of some token are not those of the pair it is merged from, or
    /// two tokens have the same bytes. With such a vocabulary even long pre-tokens are merged as a
    /// whole.
    fn trie(&self) -> Option<Trie> {
        let bytes = |id: u32| &*self.parts.tokens[id as usize];
        let has_bytes_of_parts = |&(left, right, result): &Merge| {
            bytes(result).strip_prefix(bytes(left)).is_some_and(|rest| rest == bytes(right))
        };
        let merged = self.parts.merges.iter().map(|&(_, _, result)| result);
        let single = self.byte_ids.iter().copied().filter(|&id| id != NO_ID);
        if self.parts.merges.iter().all(has_bytes_of_parts) {
            Trie::new(single.chain(merged).map(|id| (id, bytes(id))))
        } else {
            None
        }
    }

    /// Appends the ids of one pre-token. Calls `flush` every `STEP` bytes with `ids` and the number
    /// of bytes they cover so far.
    fn encode_from_left(
        &self,
        pretoken: &str,
        trie: &Trie,
        ids: &mut Vec<u32>,
        flush: &mut impl FnMut(&mut Vec<u32>, usize) -> Result<()>,
    ) -> Result<()> {
        if let Some(id) = self.whole_word(pretoken.as_bytes()) {
            ids.push(id);
            return flush(ids, pretoken.len());
        }
        self.check_bytes(pretoken)?;
        let text = pretoken.as_bytes();
        let mut compatibility = Compatibility {
            encoder: self,
            known: FxHashMap::default(),
            bytes: Vec::new(),
            symbols: Vec::new(),
            scratch: MergeScratch::default(),
        };
        // last[i] is the last token at position base + i, and `before` that at position base
        // itself.
        let (mut base, mut last) = (0, vec![NO_ID; trie.longest + 1]);
        let mut before = NO_ID;
        let mut at = 0;
        while at < text.len() {
            let end = text.len().min(at + STEP);
            last.resize(end - base + trie.longest + 1, NO_ID);
            for at in at..end {
                let left = if at == base { before } else { last[at - base] };
                let mut node = 0;
                for (length, &byte) in (1..).zip(&text[at..]) {
                    let Some(next) = trie.next(node, byte) else { break };
                    node = next;
                    let (token, index) = (trie.tokens[node as usize], at - base + length);
                    if token != NO_ID && last[index] == NO_ID && compatibility.check(left, token) {
                        last[index] = token;
                    }
                }
            }
            at = end;
            let is_end = at == text.len();
            let settled = if is_end { at } else { self.meeting(&last, base, at, trie.longest) };
            if settled > base {
                before = last[settled - base];
                self.push_chain(&last, settled - base, ids);
                last.drain(..settled - base);
                base = settled;
            }
            flush(ids, base)?;
        }
        Ok(())
    }

    /// Returns the position at which the chains from all positions less than `longest` before `end`
    /// meet.
    fn meeting(&self, last: &[u32], base: usize, end: usize, longest: usize) -> usize {
        let first = (end + 1).saturating_sub(longest).max(base);
        let mut positions: BTreeSet<usize> = (first..=end).collect();
        while positions.len() > 1
            && let Some(position) = positions.pop_last()
        {
            let token = last[position - base];
            positions.insert(position - self.parts.tokens[token as usize].len());
        }
        positions.pop_last().unwrap_or(base)
    }

    /// Appends the tokens of the chain from index `at` of `last`, in the order of the text.
    fn push_chain(&self, last: &[u32], mut at: usize, ids: &mut Vec<u32>) {
        let start = ids.len();
        while at > 0 {
            ids.push(last[at]);
            at -= self.parts.tokens[last[at] as usize].len();
        }
        ids[start..].reverse();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::random::{Purpose, below};
    use crate::tokenizer::parts::{Kind, Parts, Rules};
    use crate::tokenizer::pretokenize::Pattern;
    use crate::tokenizer::special::SpecialTokens;

    /// Returns an encoder with the 256 bytes and random merges of a few letters.
    fn encoder(seed: u64) -> Encoder {
        let draw =
            |i: u64, bound: usize| below(seed, Purpose::Benchmark, i, 0, bound as u64) as usize;
        let mut tokens: Vec<Box<[u8]>> = (0..=255).map(|byte| Box::from([byte])).collect();
        let letters = 1 + draw(0, 3);
        let mut known: Vec<u32> = (0..letters as u32).map(|i| u32::from(b'a') + i).collect();
        let mut merges = Vec::new();
        for i in 0..20 {
            let (left, right) =
                (known[draw(1 + 2 * i, known.len())], known[draw(2 + 2 * i, known.len())]);
            let bytes: Box<[u8]> =
                [&*tokens[left as usize], &*tokens[right as usize]].concat().into();
            // Equal bytes are the same token, whatever merges they come from.
            let id = tokens.iter().position(|token| *token == bytes).unwrap_or(tokens.len()) as u32;
            if id as usize == tokens.len() {
                tokens.push(bytes);
                known.push(id);
            }
            if !merges.iter().any(|&(l, r, _)| (l, r) == (left, right)) {
                merges.push((left, right, id));
            }
        }
        let (kind, pattern, rules) = (Kind::Bpe, Pattern::Gpt2, Rules::default());
        let (special, raw_texts) = (Vec::new(), Vec::new());
        let parts = Parts { kind, pattern, tokens, merges, special, raw_texts, rules };
        Encoder::new(Arc::new(parts), SpecialTokens::default(), Arc::default())
    }

    #[test]
    fn ids_from_the_left_equal_those_of_merging_by_rank() {
        for seed in 0..600 {
            let encoder = encoder(seed);
            let draw = |i: u64, bound: u64| below(seed, Purpose::Benchmark, 1000 + i, 0, bound);
            let (length, period) = (1 + draw(0, 300), 1 + draw(1, 40));
            let letter = |i: u64| (b'a' + draw(2 + i % period, 3) as u8) as char;
            let text: String = (0..length).map(letter).collect();
            let mut ids = Vec::new();
            encoder
                .encode_from_left(&text, &encoder.trie().unwrap(), &mut ids, &mut |_, _| Ok(()))
                .unwrap();
            let mut symbols: Vec<u32> = text.bytes().map(u32::from).collect();
            encoder.merge_table.merge(text.as_bytes(), &mut symbols, &mut MergeScratch::default());
            assert_eq!(ids, symbols, "{seed} {text}");
        }
    }

    #[test]
    fn ids_are_flushed_as_soon_as_they_are_final() {
        for seed in 0..12 {
            let encoder = encoder(seed);
            let draw = |i: u64| below(seed, Purpose::Benchmark, 1000 + i, 0, 3) as u8;
            let text: String = (0..5 * STEP as u64)
                .map(|i| (b'a' + draw(if seed < 6 { i } else { 0 })) as char)
                .collect();
            let (mut ids, mut all, mut most) = (Vec::new(), Vec::new(), 0);
            let mut take = |ids: &mut Vec<u32>, at: usize| {
                most = most.max(ids.len());
                all.append(ids);
                let bytes: usize =
                    all.iter().map(|&id: &u32| encoder.parts.tokens[id as usize].len()).sum();
                assert_eq!(bytes, at);
                Ok(())
            };
            encoder.encode_from_left(&text, &encoder.trie().unwrap(), &mut ids, &mut take).unwrap();
            let mut symbols: Vec<u32> = text.bytes().map(u32::from).collect();
            encoder.merge_table.merge(text.as_bytes(), &mut symbols, &mut MergeScratch::default());
            assert!(all == symbols && ids.is_empty() && most <= STEP + STEP / 16, "{seed}: {most}");
        }
    }
}
