//! An object of the engine that one call at a time may use, and that can be closed.
//!
//! A call takes a [`Lease`] before it is queued and gives it back when its promise settles. A second call in between is
//! refused with `ERR_BUSY` rather than queued: calls on one model depend on each other, so a missing `await` is a bug.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kindling_core::{Error, Result};

/// The place of one such object.
pub struct Slot<T> {
    name: &'static str,
    busy: AtomicBool,
    closed: AtomicBool,
    value: Mutex<Option<T>>,
}

/// The right of one call to use the object.
pub struct Lease<T>(Arc<Slot<T>>);

impl<T> Slot<T> {
    /// A place for `value`; errors call it `name`.
    pub fn new(name: &'static str, value: T) -> Arc<Self> {
        let value = Mutex::new(Some(value));
        Arc::new(Self { name, busy: AtomicBool::new(false), closed: AtomicBool::new(false), value })
    }

    /// The lease for one call.
    ///
    /// # Errors
    /// `ERR_CLOSED` after `close`, `ERR_BUSY` while another call holds the lease.
    pub fn lease(self: &Arc<Self>) -> Result<Lease<T>> {
        if self.closed.load(Ordering::Acquire) {
            return Err(Error::Closed(self.name));
        }
        if self.busy.swap(true, Ordering::AcqRel) {
            return Err(Error::Busy(self.name));
        }
        Ok(Lease(Arc::clone(self)))
    }

    /// Frees the object now, or when the call under way ends. Closing twice is fine.
    pub fn close(&self) {
        self.closed.store(true, Ordering::Release);
        if !self.busy.swap(true, Ordering::AcqRel) {
            self.free();
            self.busy.store(false, Ordering::Release);
        }
    }

    fn free(&self) {
        self.locked().take();
    }

    fn locked(&self) -> MutexGuard<'_, Option<T>> {
        // A panic in an earlier call left the object as it was at that moment; the call itself reported it.
        self.value.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Lease<T> {
    /// Calls `work` with the object.
    ///
    /// # Errors
    /// `ERR_CLOSED` if it is gone, and what `work` returns.
    pub fn with<R>(&self, work: impl FnOnce(&mut T) -> Result<R>) -> Result<R> {
        match self.0.locked().as_mut() {
            Some(value) => work(value),
            None => Err(Error::Closed(self.0.name)),
        }
    }
}

impl<T> Drop for Lease<T> {
    fn drop(&mut self) {
        if self.0.closed.load(Ordering::Acquire) {
            self.0.free();
        }
        self.0.busy.store(false, Ordering::Release);
    }
}
