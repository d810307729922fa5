//! How far a long call is, and the wish that it ends.
//!
//! JavaScript looks when it likes (`src/long-call.ts`): nothing crosses while the work runs, and no report can come after
//! the call's promise has settled.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use kindling_core::{Error, Result};

#[derive(Default)]
struct State {
    done: AtomicU64,
    total: AtomicU64,
    cancelled: AtomicBool,
}

/// One long call's progress and cancellation.
#[napi]
#[derive(Default)]
pub struct Monitor {
    state: Arc<State>,
}

impl Monitor {
    /// What the engine calls with (bytes done, bytes in all).
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
    /// A monitor of a call that has not begun.
    #[napi(constructor)]
    pub fn new() -> Self {
        Self::default()
    }

    /// Bytes done so far.
    #[napi(getter)]
    pub fn done(&self) -> f64 {
        self.state.done.load(Ordering::Relaxed) as f64
    }

    /// Bytes in all; 0 until the work has begun.
    #[napi(getter)]
    pub fn total(&self) -> f64 {
        self.state.total.load(Ordering::Relaxed) as f64
    }

    /// Asks the call to end with `ERR_CANCELLED`.
    #[napi]
    pub fn cancel(&self) {
        self.state.cancelled.store(true, Ordering::Relaxed);
    }
}
