//! Progress and cancellation of long calls.
//!
//! JavaScript polls the progress (`src/long-call.ts`). No callback crosses into it while the work
//! runs, so no report can arrive after the call's promise has settled.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use kindling_core::{Error, Result};

#[derive(Default)]
struct State {
    done: AtomicU64,
    total: AtomicU64,
    cancelled: AtomicBool,
}

/// Reports the progress of one long call, and cancels it.
#[napi]
#[derive(Default)]
pub struct Monitor {
    state: Arc<State>,
}

impl Monitor {
    /// Returns the callback that the engine calls with the work done and in total.
    pub fn progress(&self) -> impl FnMut(u64, u64) -> Result<()> + Send + 'static {
        let state = Arc::clone(&self.state);
        move |done, total| {
            state.done.store(done, Ordering::Relaxed);
            state.total.store(total, Ordering::Relaxed);
            if state.cancelled.load(Ordering::Relaxed) { Err(Error::Cancelled) } else { Ok(()) }
        }
    }
}

#[napi]
impl Monitor {
    /// Creates the monitor of a call that has not started.
    #[napi(constructor, catch_unwind)]
    pub fn new() -> Self {
        Self::default()
    }

    /// Work done so far: bytes, or what the call's description counts.
    #[napi(getter, catch_unwind)]
    pub fn done(&self) -> f64 {
        self.state.done.load(Ordering::Relaxed) as f64
    }

    /// Total work in the same unit; 0 until the work has started.
    #[napi(getter, catch_unwind)]
    pub fn total(&self) -> f64 {
        self.state.total.load(Ordering::Relaxed) as f64
    }

    /// Makes the call fail with `ERR_CANCELLED` at its next report of progress.
    #[napi(catch_unwind)]
    pub fn cancel(&self) {
        self.state.cancelled.store(true, Ordering::Relaxed);
    }
}
