//! Atomics, locks and threads for `pool`: the standard library's, or those of loom in
//! `crates/kindling-core/loom`, which tries every order of their operations.

#[cfg(loom)]
pub use loom::cell::UnsafeCell;
#[cfg(loom)]
pub use loom::sync::{Arc, Condvar, Mutex, atomic};
#[cfg(loom)]
pub use loom::thread;
#[cfg(loom)]
pub use loom::thread_local;
#[cfg(not(loom))]
pub use std::sync::{Arc, Condvar, Mutex, atomic};
#[cfg(not(loom))]
pub use std::thread;
#[cfg(not(loom))]
pub use std::thread_local;

/// A `std::cell::UnsafeCell` with the methods of loom's, which detects a read during a write.
#[cfg(not(loom))]
#[derive(Debug)]
pub struct UnsafeCell<T>(std::cell::UnsafeCell<T>);

#[cfg(not(loom))]
impl<T> UnsafeCell<T> {
    pub fn new(value: T) -> Self {
        Self(std::cell::UnsafeCell::new(value))
    }

    #[inline(always)]
    pub fn with<R>(&self, read: impl FnOnce(*const T) -> R) -> R {
        read(self.0.get())
    }

    #[inline(always)]
    pub fn with_mut<R>(&self, write: impl FnOnce(*mut T) -> R) -> R {
        write(self.0.get())
    }
}

/// Keeps sequentially consistent operations on different words in one total order under loom, which
/// treats them as acquire and release. Does nothing elsewhere, since they have that order already.
#[inline(always)]
pub fn in_total_order() {
    #[cfg(loom)]
    atomic::fence(atomic::Ordering::SeqCst);
}
