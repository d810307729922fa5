//! What threads keep between calls that encode, and what they share.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::ThreadId;

use super::cache::OwnCache;
use super::cache::long::LongCache;
use super::cache::shared::SharedCache;
use super::cache::shared_long::SharedLongCache;
use super::merge::MergeWork;

/// From pre-token to ids, for all threads: short ones, and long ones.
#[derive(Debug)]
pub struct SharedCaches {
    pub short: SharedCache,
    pub long: SharedLongCache,
}

impl SharedCaches {
    /// Empty ones; none where the system has no memory for them.
    pub fn new() -> Option<Self> {
        Some(Self { short: SharedCache::new()?, long: SharedLongCache::new()? })
    }
}

/// What one thread needs to encode; kept by the tokenizer between calls, so the cache stays warm.
#[derive(Debug)]
pub struct Scratch {
    pub cache: OwnCache,
    pub long: LongCache,
    pub starts: Vec<usize>,
    pub symbols: Vec<u32>,
    pub merge: MergeWork,
}

impl Scratch {
    fn new() -> Self {
        Self {
            cache: OwnCache::new(),
            long: LongCache::default(),
            starts: Vec::new(),
            symbols: Vec::new(),
            merge: MergeWork::default(),
        }
    }
}

/// Scratches that no call uses at the moment, with the thread that used each last: its core has it in its cache.
#[derive(Debug, Default)]
pub struct Scratches(Mutex<Vec<(ThreadId, Scratch)>>);

impl Scratches {
    fn lock(&self) -> MutexGuard<'_, Vec<(ThreadId, Scratch)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn take(&self) -> Scratch {
        let mut kept = self.lock();
        let own = kept.iter().position(|(thread, _)| *thread == std::thread::current().id());
        let taken = match own {
            Some(place) => Some(kept.swap_remove(place)),
            None => kept.pop(),
        };
        drop(kept);
        taken.map_or_else(Scratch::new, |(_, scratch)| scratch)
    }

    pub fn give(&self, scratch: Scratch) {
        self.lock().push((std::thread::current().id(), scratch));
    }
}
