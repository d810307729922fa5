//! An engine object that serves one call at a time and can be closed.
//!
//! A call takes a [`Guard`] before it is queued and drops it when its promise settles. A second
//! call in between fails with `ERR_BUSY` instead of waiting: calls on one model depend on each
//! other, so a missing `await` is a bug. Closing never waits: the object is freed at once, or when
//! the call that holds the guard ends.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kindling_core::{Error, Result};

/// An object that one call at a time may use.
pub struct Exclusive<T> {
    name: &'static str,
    busy: AtomicBool,
    closed: AtomicBool,
    value: Mutex<Option<T>>,
}

/// Exclusive access to the object for one call; dropping it lets the next call in.
pub struct Guard<T>(Arc<Exclusive<T>>);

impl<T> Exclusive<T> {
    /// Wraps `value`; error messages call it `name`.
    pub fn new(name: &'static str, value: T) -> Arc<Self> {
        let value = Mutex::new(Some(value));
        Arc::new(Self { name, busy: AtomicBool::new(false), closed: AtomicBool::new(false), value })
    }

    /// Reserves the object for one call.
    ///
    /// # Errors
    /// Returns `ERR_CLOSED` after `close`, and `ERR_BUSY` while another call holds the guard.
    pub fn acquire(self: &Arc<Self>) -> Result<Guard<T>> {
        if self.closed.load(Ordering::Acquire) {
            return Err(Error::Closed(self.name));
        }
        if self.busy.swap(true, Ordering::AcqRel) {
            return Err(Error::Busy(self.name));
        }
        Ok(Guard(Arc::clone(self)))
    }

    /// Frees the object, now or when the current call ends. Never waits; closing twice has no
    /// effect.
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
        // A panic in an earlier call poisons the mutex. That call has already reported it as an
        // error.
        self.value.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Guard<T> {
    /// Runs `work` on the object.
    ///
    /// # Errors
    /// Returns `ERR_CLOSED` if the object has been freed, and any error of `work`.
    pub fn with<R>(&self, work: impl FnOnce(&mut T) -> Result<R>) -> Result<R> {
        match self.0.locked().as_mut() {
            Some(value) => work(value),
            None => Err(Error::Closed(self.0.name)),
        }
    }
}

impl<T> Drop for Guard<T> {
    fn drop(&mut self) {
        if self.0.closed.load(Ordering::Acquire) {
            self.0.free();
        }
        self.0.busy.store(false, Ordering::Release);
    }
}
