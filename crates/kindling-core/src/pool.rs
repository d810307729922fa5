//! Threads owned by the engine.
//!
//! Work is cut in fixed pieces whose number and bounds never depend on the number of threads, so results do not either.

use std::sync::Arc;

/// A set of threads that run pieces of one job at a time. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Pool {
    threads: usize,
    inner: Arc<rayon::ThreadPool>,
}

impl Pool {
    /// A pool in which `threads` threads work, the caller's among them.
    ///
    /// # Panics
    /// When the system refuses to start a thread.
    pub fn new(threads: usize) -> Self {
        let inner =
            rayon::ThreadPoolBuilder::new().num_threads(threads.max(1)).build().expect("threads start");
        Self { threads: threads.max(1), inner: Arc::new(inner) }
    }

    /// Threads that work on a job.
    pub fn threads(&self) -> usize {
        self.threads
    }

    /// Runs `work(piece)` once for each piece in 0..pieces, in any order and on any thread, and returns when all are done.
    pub fn run(&self, pieces: usize, work: impl Fn(usize) + Sync) {
        use rayon::prelude::*;
        if pieces == 1 || self.threads == 1 {
            (0..pieces).for_each(work);
        } else {
            self.inner.install(|| (0..pieces).into_par_iter().with_max_len(1).for_each(&work));
        }
    }
}

/// Cores the process may use (affinity and cgroup quota respected).
pub fn available_threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}
