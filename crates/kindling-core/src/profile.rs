//! Where the time of a step goes: calls, seconds and arithmetic of each op, while a profile is taken.
//!
//! Off, it costs an op one look at a flag. Ops do not contain each other, so their seconds add up.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// What one op took. Linear layers count by their sizes.
#[derive(Debug, Clone, PartialEq)]
pub struct OpProfile {
    /// The op, with the sizes of a linear layer: `linear::forward 512 -> 1536`.
    pub op: String,
    /// How often it ran.
    pub calls: u64,
    /// Seconds of wall time in all.
    pub seconds: f64,
    /// Floating-point operations of its products in all; 0 where it has none.
    pub flops: f64,
}

/// A device's record of its ops.
#[derive(Default)]
pub struct Profile {
    on: AtomicBool,
    ops: Mutex<BTreeMap<String, OpProfile>>,
    /// Waits for the device, where an op returns before its work is done.
    wait: Option<Box<dyn Fn() + Send + Sync>>,
}

impl std::fmt::Debug for Profile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Profile")
            .field("on", &self.on)
            .field("ops", &self.ops)
            .finish_non_exhaustive()
    }
}

impl Profile {
    /// The record of a device that works on after an op has returned. While it is taken, each op is waited for.
    pub fn waiting(wait: impl Fn() + Send + Sync + 'static) -> Self {
        Self { wait: Some(Box::new(wait)), ..Self::default() }
    }

    /// Begins a new record.
    pub fn start(&self) {
        self.ops().clear();
        self.on.store(true, Ordering::Relaxed);
    }

    /// Ends the record; gives its ops, the longest first.
    pub fn stop(&self) -> Vec<OpProfile> {
        self.on.store(false, Ordering::Relaxed);
        let mut ops: Vec<OpProfile> = std::mem::take(&mut *self.ops()).into_values().collect();
        ops.sort_by(|a, b| b.seconds.total_cmp(&a.seconds));
        ops
    }

    /// Counts the time until the span is dropped to `op`.
    pub fn span(&self, op: &'static str) -> Span<'_> {
        self.product(op, || (String::new(), 0.0))
    }

    /// As `span`, for an op with products: `sizes` gives what tells it from others of its name, and its operations.
    pub fn product(&self, op: &'static str, sizes: impl FnOnce() -> (String, f64)) -> Span<'_> {
        if !self.on.load(Ordering::Relaxed) {
            return Span { open: None };
        }
        let (sizes, flops) = sizes();
        self.wait();
        Span { open: Some(Open { profile: self, op, sizes, flops, started: Instant::now() }) }
    }

    fn wait(&self) {
        if let Some(wait) = &self.wait {
            wait();
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
    open: Option<Open<'a>>,
}

#[derive(Debug)]
struct Open<'a> {
    profile: &'a Profile,
    op: &'static str,
    sizes: String,
    flops: f64,
    started: Instant,
}

impl Drop for Span<'_> {
    fn drop(&mut self) {
        let Some(Open { profile, op, sizes, flops, started }) = self.open.take() else { return };
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
    fn calls_are_counted_by_op_and_sizes_only_between_start_and_stop() {
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
