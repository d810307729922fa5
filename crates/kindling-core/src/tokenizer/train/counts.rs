//! How often each pre-token occurs: an open-addressing table of those of at most 15 bytes, a map of the rest.

use rustc_hash::FxHashMap;

use crate::Result;
use crate::simd::Isa;
use crate::tokenizer::encode::cache::{CACHED_BYTES, Key};
use crate::tokenizer::pretokenize::{Pattern, Scanner};

#[derive(Debug, Clone, Copy, Default)]
struct Slot {
    key: Key,
    /// 0 where the slot is free.
    count: u64,
}

/// Counts of pre-tokens.
#[derive(Debug)]
pub struct Counts {
    slots: Vec<Slot>,
    used: usize,
    long: FxHashMap<Box<[u8]>, u64>,
    starts: Vec<usize>,
    pattern: Pattern,
    isa: Isa,
}

impl Counts {
    /// No pre-token yet.
    pub fn new(pattern: Pattern) -> Self {
        Self {
            slots: vec![Slot::default(); 1 << 12],
            used: 0,
            long: FxHashMap::default(),
            starts: Vec::new(),
            pattern,
            isa: Isa::detect(),
        }
    }

    /// Counts the pre-tokens of `text`.
    ///
    /// # Errors
    /// `ERR_INVALID_ARGUMENT` where a regular expression gives up on the text.
    pub fn count_text(&mut self, text: &str) -> Result<()> {
        let pattern = self.pattern.clone();
        let mut scanner = Scanner::new(text, &pattern, self.isa);
        let mut starts = std::mem::take(&mut self.starts);
        starts.clear();
        loop {
            let more = scanner.next_window(&mut starts)?;
            if !more {
                starts.push(text.len());
            }
            for pretoken in starts.windows(2) {
                self.add_one(text.as_bytes(), pretoken[0], pretoken[1]);
            }
            // Where the last one ends is not known yet.
            let last = starts.pop();
            starts.clear();
            starts.extend(last);
            if !more {
                break;
            }
        }
        self.starts = starts;
        Ok(())
    }

    /// Counts the pre-token `start..end` of `text`.
    #[inline]
    pub fn add_one(&mut self, text: &[u8], start: usize, end: usize) {
        if end - start <= CACHED_BYTES {
            self.add_key(Key::new(text, start, end), 1);
        } else {
            self.add_long(&text[start..end], 1);
        }
    }

    #[inline]
    fn add_key(&mut self, key: Key, count: u64) {
        let place = self.place(key);
        let slot = &mut self.slots[place];
        if slot.count == 0 {
            slot.key = key;
            self.used += 1;
        }
        slot.count += count;
        if self.used * 2 > self.slots.len() {
            self.grow();
        }
    }

    fn add_long(&mut self, pretoken: &[u8], count: u64) {
        if let Some(known) = self.long.get_mut(pretoken) {
            *known += count;
        } else {
            self.long.insert(pretoken.into(), count);
        }
    }

    /// Where `key` is, or is to be.
    #[inline]
    fn place(&self, key: Key) -> usize {
        let mask = self.slots.len() - 1;
        let mut at = (key.hash() >> (64 - self.slots.len().trailing_zeros())) as usize;
        while self.slots[at].count != 0 && self.slots[at].key != key {
            at = (at + 1) & mask;
        }
        at
    }

    #[cold]
    fn grow(&mut self) {
        let larger = vec![Slot::default(); self.slots.len() * 2];
        for slot in std::mem::replace(&mut self.slots, larger) {
            if slot.count != 0 {
                let place = self.place(slot.key);
                self.slots[place] = slot;
            }
        }
    }

    /// Adds what another thread counted.
    pub fn add_all(&mut self, other: Self) {
        for slot in other.slots.into_iter().filter(|slot| slot.count != 0) {
            self.add_key(slot.key, slot.count);
        }
        for (pretoken, count) in other.long {
            self.add_long(&pretoken, count);
        }
    }

    /// Calls `each` with every pre-token and its count.
    pub fn for_each(&self, mut each: impl FnMut(&[u8], u64)) {
        for slot in self.slots.iter().filter(|slot| slot.count != 0) {
            let (bytes, length) = slot.key.bytes();
            each(&bytes[..length], slot.count);
        }
        for (pretoken, count) in &self.long {
            each(pretoken, *count);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::tokenizer::pretokenize::pretokens;

    #[test]
    fn counts_of_two_threads_add_up_to_those_of_a_plain_map() {
        let words =
            |i: u64| format!(" word{} {} {}", i * i % 7919, "y".repeat((i % 40) as usize), i % 13);
        let text: String = (0..20_000).map(words).collect();
        let half = text[..text.len() / 2].rfind(' ').unwrap();
        let (mut one, mut two) = (Counts::new(Pattern::Gpt2), Counts::new(Pattern::Gpt2));
        one.count_text(&text[..half]).unwrap();
        two.count_text(&text[half..]).unwrap();
        one.add_all(two);
        let mut expected: HashMap<&[u8], u64> = HashMap::new();
        for pretoken in pretokens(&text[..half]).chain(pretokens(&text[half..])) {
            *expected.entry(pretoken.as_bytes()).or_default() += 1;
        }
        let mut found = 0;
        one.for_each(|pretoken, count| {
            assert_eq!(expected.get(pretoken), Some(&count), "{pretoken:?}");
            found += 1;
        });
        assert_eq!(found, expected.len());
    }
}
