//! Profiles the engine: calls, seconds and floating-point operations of each op.
//!
//! While nothing is recorded, an op only reads one flag. Ops are not nested, so their seconds add
//! up.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// Totals of one op. Linear layers of different sizes count separately.
#[derive(Debug, Clone, PartialEq)]
pub struct OpProfile {
    /// Name of the op; for a linear layer, with its sizes: `linear::forward 512 -> 1536`.
    pub op: String,
    pub calls: u64,
    /// Total wall time.
    pub seconds: f64,
    /// Total floating-point operations of its matrix products; 0 if it has none.
    pub flops: f64,
}

/// Records the ops of a device between `start` and `stop`.
#[derive(Default)]
pub struct Profile {
    recording: AtomicBool,
    ops: Mutex<BTreeMap<String, OpProfile>>,
    /// Waits for the device, on one whose ops return before their work is done.
    synchronize: Option<Box<dyn Fn() + Send + Sync>>,
}

impl std::fmt::Debug for Profile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Profile")
            .field("recording", &self.recording)
            .field("ops", &self.ops)
            .finish_non_exhaustive()
    }
}

impl Profile {
    /// Creates the profile of a device whose ops only queue their work. While it records, it calls
    /// `synchronize` before and after each op.
    pub fn with_synchronize(synchronize: impl Fn() + Send + Sync + 'static) -> Self {
        Self { synchronize: Some(Box::new(synchronize)), ..Self::default() }
    }

    /// Starts a new recording and drops the previous one.
    pub fn start(&self) {
        self.ops().clear();
        self.recording.store(true, Ordering::Relaxed);
    }

    /// Stops recording and returns the ops, longest first.
    pub fn stop(&self) -> Vec<OpProfile> {
        self.recording.store(false, Ordering::Relaxed);
        let mut ops: Vec<OpProfile> = std::mem::take(&mut *self.ops()).into_values().collect();
        ops.sort_by(|a, b| b.seconds.total_cmp(&a.seconds));
        ops
    }

    /// Starts a span that counts towards `op` until it is dropped.
    pub fn span(&self, op: &'static str) -> Span<'_> {
        self.product(op, || (String::new(), 0.0))
    }

    /// Like `span`, for an op that multiplies matrices. `sizes` returns the sizes to add to its
    /// name, and its number of floating-point operations.
    pub fn product(&self, op: &'static str, sizes: impl FnOnce() -> (String, f64)) -> Span<'_> {
        if !self.recording.load(Ordering::Relaxed) {
            return Span { open: None };
        }
        let (sizes, flops) = sizes();
        self.wait();
        Span { open: Some(OpenSpan { profile: self, op, sizes, flops, started: Instant::now() }) }
    }

    fn wait(&self) {
        if let Some(synchronize) = &self.synchronize {
            synchronize();
        }
    }

    fn ops(&self) -> MutexGuard<'_, BTreeMap<String, OpProfile>> {
        self.ops.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One call of an op.
#[derive(Debug)]
#[must_use = "a span counts until it is dropped"]
pub struct Span<'a> {
    /// `None` while nothing is recorded.
    open: Option<OpenSpan<'a>>,
}

#[derive(Debug)]
struct OpenSpan<'a> {
    profile: &'a Profile,
    op: &'static str,
    sizes: String,
    flops: f64,
    started: Instant,
}

impl Drop for Span<'_> {
    fn drop(&mut self) {
        let Some(OpenSpan { profile, op, sizes, flops, started }) = self.open.take() else {
            return;
        };
        profile.wait();
        let seconds = started.elapsed().as_secs_f64();
        let name = format!("{op} {sizes}");
        let name = name.trim_end();
        let mut ops = profile.ops();
        let total = ops.entry(name.to_owned()).or_insert_with(|| OpProfile {
            op: name.to_owned(),
            calls: 0,
            seconds: 0.0,
            flops: 0.0,
        });
        total.calls += 1;
        total.seconds += seconds;
        total.flops += flops;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_between_start_and_stop_are_counted_by_op_and_sizes() {
        let profile = Profile::default();
        drop(profile.span("early"));
        profile.start();
        drop(profile.span("norm"));
        for _ in 0..2 {
            drop(profile.product("linear", || ("2 -> 3".to_owned(), 12.0)));
        }
        let mut ops = profile.stop();
        drop(profile.span("late"));
        ops.sort_by(|a, b| a.op.cmp(&b.op));
        let counted: Vec<_> = ops.iter().map(|op| (op.op.as_str(), op.calls, op.flops)).collect();
        assert_eq!(counted, [("linear 2 -> 3", 2, 24.0), ("norm", 1, 0.0)]);
        assert!(ops.iter().all(|op| op.seconds > 0.0));
        assert_eq!(profile.stop(), []);
    }
}
