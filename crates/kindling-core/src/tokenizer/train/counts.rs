//! Counts of pre-tokens: a hash table for those that fit in a key, a map for the rest.

use rustc_hash::FxHashMap;

use crate::Result;
use crate::host_memory::filled_or_panic;
use crate::simd::Isa;
use crate::tokenizer::pretokenize::{MAX_KEY_BYTES, Pattern, PretokenKey, Scanner};

#[derive(Debug, Clone, Copy, Default)]
struct CountEntry {
    key: PretokenKey,
    /// 0 while the entry is free.
    count: u64,
}

/// Counts of pre-tokens.
#[derive(Debug)]
pub struct Counts {
    /// Open addressing, at most half full.
    entries: Vec<CountEntry>,
    used: usize,
    long: FxHashMap<Box<[u8]>, u64>,
    /// Starts of pre-tokens in the current window.
    starts: Vec<usize>,
    pattern: Pattern,
    isa: Isa,
}

impl Counts {
    pub fn new(pattern: Pattern) -> Self {
        Self {
            entries: vec![CountEntry::default(); 1 << 12],
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
    /// Returns `ERR_INVALID_ARGUMENT` if a regular expression gives up on the text.
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
            // The end of the last pre-token is not known yet.
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

    /// Counts the pre-token `text[start..end]`.
    #[inline]
    fn add_one(&mut self, text: &[u8], start: usize, end: usize) {
        if end - start <= MAX_KEY_BYTES {
            self.add_key(PretokenKey::new(text, start, end), 1);
        } else {
            self.add_long(&text[start..end], 1);
        }
    }

    #[inline]
    fn add_key(&mut self, key: PretokenKey, count: u64) {
        let index = self.find(key);
        let entry = &mut self.entries[index];
        if entry.count == 0 {
            entry.key = key;
            self.used += 1;
        }
        entry.count += count;
        if self.used * 2 > self.entries.len() {
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

    /// Returns the index of the entry of `key`, or of the free entry where it belongs.
    #[inline]
    fn find(&self, key: PretokenKey) -> usize {
        let mask = self.entries.len() - 1;
        let mut at = (key.hash() >> (64 - self.entries.len().trailing_zeros())) as usize;
        while self.entries[at].count != 0 && self.entries[at].key != key {
            at = (at + 1) & mask;
        }
        at
    }

    #[cold]
    fn grow(&mut self) {
        let larger = filled_or_panic(CountEntry::default(), self.entries.len() * 2);
        for entry in std::mem::replace(&mut self.entries, larger) {
            if entry.count != 0 {
                let index = self.find(entry.key);
                self.entries[index] = entry;
            }
        }
    }

    /// Adds the counts of another thread.
    pub fn add_all(&mut self, other: Self) {
        for entry in other.entries.into_iter().filter(|entry| entry.count != 0) {
            self.add_key(entry.key, entry.count);
        }
        for (pretoken, count) in other.long {
            self.add_long(&pretoken, count);
        }
    }

    /// Calls `each` with every pre-token and its count.
    pub fn for_each(&self, mut each: impl FnMut(&[u8], u64)) {
        for entry in self.entries.iter().filter(|entry| entry.count != 0) {
            let (bytes, length) = entry.key.bytes();
            each(&bytes[..length], entry.count);
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
    fn counts_of_two_threads_add_up_to_those_of_a_hash_map() {
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
