//! Ids of a pre-token of any length, in memory that does not depend on it.
//!
//! Merging by rank needs the whole pre-token. What it gives can be found from left to right all the same:
//! - A sequence of tokens is what merging gives if and only if each two neighbours are what merging gives for their bytes: the
//!   first merge across a border of two of them would happen with these two alone as well, since until then nothing else
//!   has touched them.
//! - So what merging gives for the first i bytes ends in the one token whose neighbour, the last token of the bytes before it,
//!   goes with it; and without that token it is what merging gives for the bytes before.
//!
//! `last[i]` is that token for every i. From the last few places the ways back soon meet, and what lies before is certain.
//! The idea of last tokens is that of the `bpe` crate (github/rust-gems); with merges in place of ranks of tokens it holds for any
//! list of merges.

use std::collections::{BTreeSet, HashMap};
use std::hash::{BuildHasherDefault, Hasher};

use super::merge::MergeWork;
use super::scratch::Scratch;
use crate::Result;
use crate::tokenizer::Tokenizer;

/// Bytes of a pre-token from which it is encoded so.
pub const GIANT: usize = 1 << 20;
/// Bytes after which what is certain is given off.
const STEP: usize = 1 << 16;
/// Pairs remembered at most.
const PAIRS: usize = 1 << 20;
const NONE: u32 = u32::MAX;

/// A hash of small integers.
#[derive(Default)]
struct Multiply(u64);

impl Hasher for Multiply {
    fn finish(&self) -> u64 {
        self.0 ^ self.0 >> 32
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u64(u64::from(byte));
        }
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = (self.0 ^ value).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }
}

type Table<T> = HashMap<u64, T, BuildHasherDefault<Multiply>>;

/// All tokens by their bytes.
struct Trie {
    /// (node, byte) to node; the root is 0.
    nodes: Table<u32>,
    /// Token that ends at each node.
    tokens: Vec<u32>,
    /// Bytes of the longest token.
    longest: usize,
}

impl Trie {
    /// None where two tokens have the same bytes.
    fn new<'a>(tokens: impl Iterator<Item = (u32, &'a [u8])>) -> Option<Self> {
        let mut trie = Self { nodes: Table::default(), tokens: vec![NONE], longest: 0 };
        for (id, bytes) in tokens {
            let mut node = 0;
            for &byte in bytes {
                let next = trie.tokens.len() as u32;
                node = *trie.nodes.entry(u64::from(node) << 8 | u64::from(byte)).or_insert(next);
                if node == next {
                    trie.tokens.push(NONE);
                }
            }
            let token = &mut trie.tokens[node as usize];
            if *token != NONE && *token != id {
                return None;
            }
            *token = id;
            trie.longest = trie.longest.max(bytes.len());
        }
        Some(trie)
    }

    fn next(&self, node: u32, byte: u8) -> Option<u32> {
        self.nodes.get(&(u64::from(node) << 8 | u64::from(byte))).copied()
    }
}

/// Which tokens stand side by side.
struct Pairs<'a> {
    tokenizer: &'a Tokenizer,
    known: Table<bool>,
    bytes: Vec<u8>,
    symbols: Vec<u32>,
    work: MergeWork,
}

impl Pairs<'_> {
    /// Whether merging the bytes of both tokens gives the two; of `right` alone where `left` is none.
    fn go_together(&mut self, left: u32, right: u32) -> bool {
        let key = u64::from(left) << 32 | u64::from(right);
        if let Some(&known) = self.known.get(&key) {
            return known;
        }
        let Self { tokenizer, bytes, symbols, work, .. } = self;
        bytes.clear();
        let ids = [left, right];
        let wanted = if left == NONE { &ids[1..] } else { &ids };
        for &id in wanted {
            bytes.extend_from_slice(&tokenizer.tokens[id as usize]);
        }
        tokenizer.merge_bytes(bytes, symbols, work);
        let together = symbols == wanted;
        if self.known.len() >= PAIRS {
            self.known.clear();
        }
        self.known.insert(key, together);
        together
    }
}

impl Tokenizer {
    /// Appends the ids of the pre-tokens between each two of `starts` up to the last of giant length, and drops those starts.
    pub(super) fn encode_giants(
        &self,
        text: &str,
        starts: &mut Vec<usize>,
        scratch: &mut Scratch,
        ids: &mut Vec<u32>,
        flush: &mut impl FnMut(&mut Vec<u32>, usize) -> Result<()>,
    ) -> Result<()> {
        while let Some(giant) = starts.windows(2).position(|bounds| bounds[1] - bounds[0] > GIANT) {
            let Some(trie) = self.trie() else { return Ok(()) };
            self.encode_pretokens(text, &starts[..=giant], scratch, ids)?;
            let (start, end) = (starts[giant], starts[giant + 1]);
            self.encode_giant(&text[start..end], &trie, ids, &mut |ids, at| {
                flush(ids, start + at)
            })?;
            starts.drain(..=giant);
        }
        Ok(())
    }

    /// The tokens that merging can give; none where a token has not the bytes of what it is made of (it is written as other
    /// bytes are), or not alone: such a vocabulary merges giants whole.
    fn trie(&self) -> Option<Trie> {
        let bytes = |id: u32| &*self.tokens[id as usize];
        let suits = |&(left, right, result): &(u32, u32, u32)| {
            bytes(result).strip_prefix(bytes(left)).is_some_and(|rest| rest == bytes(right))
        };
        let made = self.merges.iter().map(|&(_, _, result)| result);
        let single = self.byte_ids.iter().copied().filter(|&id| id != NONE);
        if self.merges.iter().all(suits) {
            Trie::new(single.chain(made).map(|id| (id, bytes(id))))
        } else {
            None
        }
    }

    /// Appends the ids of one pre-token. After every few of them `flush` gets `ids`, and the bytes they stand for so far.
    fn encode_giant(
        &self,
        pretoken: &str,
        trie: &Trie,
        ids: &mut Vec<u32>,
        flush: &mut impl FnMut(&mut Vec<u32>, usize) -> Result<()>,
    ) -> Result<()> {
        self.check_bytes(pretoken)?;
        let text = pretoken.as_bytes();
        let mut pairs = Pairs {
            tokenizer: self,
            known: Table::default(),
            bytes: Vec::new(),
            symbols: Vec::new(),
            work: MergeWork::default(),
        };
        // The last token of the first `base + i` bytes, as far as it is known.
        let (mut base, mut last) = (0, vec![NONE; trie.longest + 1]);
        let mut before = NONE;
        let mut at = 0;
        while at < text.len() {
            let end = text.len().min(at + STEP);
            last.resize(end - base + trie.longest + 1, NONE);
            for at in at..end {
                let left = if at == base { before } else { last[at - base] };
                let mut node = 0;
                for (length, &byte) in (1..).zip(&text[at..]) {
                    let Some(next) = trie.next(node, byte) else { break };
                    node = next;
                    let (token, place) = (trie.tokens[node as usize], at - base + length);
                    if token != NONE && last[place] == NONE && pairs.go_together(left, token) {
                        last[place] = token;
                    }
                }
            }
            at = end;
            let certain =
                if at == text.len() { at } else { self.meeting(&last, base, at, trie.longest) };
            if certain > base {
                before = last[certain - base];
                self.push_way(&last, certain - base, ids);
                last.drain(..certain - base);
                base = certain;
            }
            flush(ids, base)?;
        }
        Ok(())
    }

    /// Where the ways back from all places that later tokens can begin at meet: those less than `longest` before `end`.
    fn meeting(&self, last: &[u32], base: usize, end: usize, longest: usize) -> usize {
        let first = (end + 1).saturating_sub(longest).max(base);
        let mut places: BTreeSet<usize> = (first..=end).collect();
        while places.len() > 1
            && let Some(place) = places.pop_last()
        {
            places.insert(place - self.tokens[last[place - base] as usize].len());
        }
        places.pop_last().unwrap_or(base)
    }

    /// Appends the tokens on the way to `place`.
    fn push_way(&self, last: &[u32], mut place: usize, ids: &mut Vec<u32>) {
        let start = ids.len();
        while place > 0 {
            ids.push(last[place]);
            place -= self.tokens[last[place] as usize].len();
        }
        ids[start..].reverse();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::{Purpose, below};
    use crate::tokenizer::parts::Parts;
    use crate::tokenizer::{Kind, Pattern};

    /// A tokenizer of 256 bytes and random merges of few letters, in any order of lengths.
    fn tokenizer(seed: u64) -> Tokenizer {
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
            // The same bytes are the same token, made in several ways.
            let id = tokens.iter().position(|token| *token == bytes).unwrap_or(tokens.len()) as u32;
            if id as usize == tokens.len() {
                tokens.push(bytes);
                known.push(id);
            }
            if !merges.iter().any(|&(l, r, _)| (l, r) == (left, right)) {
                merges.push((left, right, id));
            }
        }
        let (special, odd_texts) = (Vec::new(), Vec::new());
        let parts =
            Parts { kind: Kind::Bpe, pattern: Pattern::Gpt2, tokens, merges, special, odd_texts };
        Tokenizer::from_parts(parts).unwrap()
    }

    #[test]
    fn ids_are_those_of_merging_by_rank() {
        for seed in 0..600 {
            let tokenizer = tokenizer(seed);
            let draw = |i: u64, bound: u64| below(seed, Purpose::Benchmark, 1000 + i, 0, bound);
            let (length, period) = (1 + draw(0, 300), 1 + draw(1, 40));
            let letter = |i: u64| (b'a' + draw(2 + i % period, 3) as u8) as char;
            let text: String = (0..length).map(letter).collect();
            let mut ids = Vec::new();
            tokenizer
                .encode_giant(&text, &tokenizer.trie().unwrap(), &mut ids, &mut |_, _| Ok(()))
                .unwrap();
            let mut symbols: Vec<u32> = text.bytes().map(u32::from).collect();
            tokenizer.merge_table.merge(text.as_bytes(), &mut symbols, &mut MergeWork::default());
            assert_eq!(ids, symbols, "{seed} {text}");
        }
    }

    #[test]
    fn what_is_certain_is_given_off_as_it_comes() {
        for seed in 0..12 {
            let tokenizer = tokenizer(seed);
            let draw = |i: u64| below(seed, Purpose::Benchmark, 1000 + i, 0, 3) as u8;
            let text: String = (0..5 * STEP as u64)
                .map(|i| (b'a' + draw(if seed < 6 { i } else { 0 })) as char)
                .collect();
            let (mut ids, mut all, mut most) = (Vec::new(), Vec::new(), 0);
            let mut take = |ids: &mut Vec<u32>, at: usize| {
                most = most.max(ids.len());
                all.append(ids);
                let bytes: usize =
                    all.iter().map(|&id: &u32| tokenizer.tokens[id as usize].len()).sum();
                assert_eq!(bytes, at);
                Ok(())
            };
            tokenizer.encode_giant(&text, &tokenizer.trie().unwrap(), &mut ids, &mut take).unwrap();
            let mut symbols: Vec<u32> = text.bytes().map(u32::from).collect();
            tokenizer.merge_table.merge(text.as_bytes(), &mut symbols, &mut MergeWork::default());
            assert!(all == symbols && ids.is_empty() && most <= STEP + STEP / 16, "{seed}: {most}");
        }
    }
}
