//! Caches and buffers that a thread reuses from one call of `encode` to the next.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::ThreadId;

use super::cache::{ThreadCache, ThreadLongCache};
use super::merge::MergeScratch;

/// Caches and buffers of one thread.
#[derive(Debug)]
pub struct Scratch {
    pub cache: ThreadCache,
    pub long_cache: ThreadLongCache,
    /// Starts of pre-tokens in the current window.
    pub starts: Vec<usize>,
    /// Ids of the pre-token being merged.
    pub symbols: Vec<u32>,
    pub merge: MergeScratch,
}

impl Scratch {
    fn new() -> Self {
        Self {
            cache: ThreadCache::new(),
            long_cache: ThreadLongCache::default(),
            starts: Vec::new(),
            symbols: Vec::new(),
            merge: MergeScratch::default(),
        }
    }
}

/// Scratch memory that no call is using.
///
/// Each is stored with the thread that used it last, and goes back to that thread if possible,
/// since it may still be in the cache of that thread's core.
#[derive(Debug, Default)]
pub struct ScratchPool(Mutex<Vec<(ThreadId, Scratch)>>);

impl ScratchPool {
    fn lock(&self) -> MutexGuard<'_, Vec<(ThreadId, Scratch)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn take(&self) -> Scratch {
        let mut free = self.lock();
        let own = free.iter().position(|(thread, _)| *thread == std::thread::current().id());
        let taken = match own {
            Some(index) => Some(free.swap_remove(index)),
            None => free.pop(),
        };
        drop(free);
        taken.map_or_else(Scratch::new, |(_, scratch)| scratch)
    }

    pub fn put_back(&self, scratch: Scratch) {
        self.lock().push((std::thread::current().id(), scratch));
    }
}
