//! A slot of a table that threads share. One thread writes it, and all threads read it without a
//! lock.
//!
//! ```text
//! claim:    compare_exchange(tag, FREE, CLAIMED)    one of the writers wins
//! fill:     words = ...                             relaxed stores
//! publish:  tag = the entry's tag                   release store
//! read:     tag (acquire), then words               relaxed loads
//! ```
//!
//! 1. The tag holds part of the key. Neither `FREE` nor `CLAIMED` is a tag, so to readers a slot
//!    that is being filled belongs to another key, and they compute the ids themselves.
//! 2. A reader that sees the tag sees all words, since its acquire load pairs with the release
//!    store.
//! 3. A published slot never changes, so words read after the tag belong to it.
//!
//! `crates/kindling-core/loom` runs this file through every interleaving of two writers and a
//! reader.

#[cfg(loom)]
use loom::sync::atomic::{AtomicU64, Ordering};
#[cfg(not(loom))]
use std::sync::atomic::{AtomicU64, Ordering};

use super::huge_page_table::SharedZeroable;

pub const FREE: u64 = 0;
const CLAIMED: u64 = u64::MAX;

/// A tag and `WORDS` words, all zeros while free. Tags are neither `FREE` nor `CLAIMED`.
#[derive(Debug)]
#[repr(align(64))]
pub struct WriteOnceSlot<const WORDS: usize> {
    tag: AtomicU64,
    words: [AtomicU64; WORDS],
}

// SAFETY: zeros are valid, and every field is atomic.
unsafe impl<const WORDS: usize, const SLOTS: usize> SharedZeroable
    for [WriteOnceSlot<WORDS>; SLOTS]
{
}

impl<const WORDS: usize> WriteOnceSlot<WORDS> {
    /// Returns the tag. `word` then returns the words that were published with it.
    #[inline(always)]
    pub fn tag(&self) -> u64 {
        self.tag.load(Ordering::Acquire)
    }

    #[inline(always)]
    pub fn word(&self, index: usize) -> u64 {
        self.words[index].load(Ordering::Relaxed)
    }

    /// Returns the address of a word, to prefetch it.
    #[inline(always)]
    pub fn address(&self, index: usize) -> *const AtomicU64 {
        &raw const self.words[index]
    }

    #[inline(always)]
    pub fn is_free(&self) -> bool {
        self.tag.load(Ordering::Relaxed) == FREE
    }

    /// Returns a free slot: loom's atomics are not zeros.
    #[cfg(loom)]
    pub fn free() -> Self {
        Self { tag: AtomicU64::new(FREE), words: std::array::from_fn(|_| AtomicU64::new(0)) }
    }

    /// Fills the slot if it is free. Returns whether it was.
    pub fn fill(&self, tag: u64, words: impl Iterator<Item = u64>) -> bool {
        let (relaxed, release) = (Ordering::Relaxed, Ordering::Release);
        if self.tag.compare_exchange(FREE, CLAIMED, relaxed, relaxed).is_err() {
            return false;
        }
        for (target, word) in self.words.iter().zip(words) {
            target.store(word, relaxed);
        }
        self.tag.store(tag, release);
        true
    }
}
