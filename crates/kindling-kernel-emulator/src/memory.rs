//! Memory for kernels. It ends at a guard page, and the bytes around it are checked.

use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::sync::{Mutex, MutexGuard, PoisonError};

use kindling_core::cuda::Arg;

/// An element type of memory.
pub trait Element: Copy {
    /// Size in bytes.
    const SIZE: usize;
    /// Converts from f32, rounding to nearest even.
    fn from_f32(x: f32) -> Self;
    /// Converts to f32, exactly.
    fn to_f32(self) -> f32;
}

impl Element for f32 {
    const SIZE: usize = 4;
    fn from_f32(x: f32) -> Self {
        x
    }
    fn to_f32(self) -> f32 {
        self
    }
}

/// A bfloat16: the upper half of an f32.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bf16(pub u16);

impl Element for Bf16 {
    const SIZE: usize = 2;
    fn from_f32(x: f32) -> Self {
        let bits = x.to_bits();
        if x.is_nan() {
            Self(0x7fff)
        } else {
            Self(((bits + 0x7fff + (bits >> 16 & 1)) >> 16) as u16)
        }
    }
    fn to_f32(self) -> f32 {
        f32::from_bits(u32::from(self.0) << 16)
    }
}

/// Integers and f64 convert by `as`, which need not be exact.
macro_rules! integer_element {
    ($($t:ty),*) => {$(
        impl Element for $t {
            const SIZE: usize = size_of::<$t>();
            fn from_f32(x: f32) -> Self {
                x as $t
            }
            fn to_f32(self) -> f32 {
                self as f32
            }
        }
    )*};
}
integer_element!(u8, i32, u32, f64);

/// Sizes in bytes of all live memory, by address.
static LIVE: Mutex<BTreeMap<u64, usize>> = Mutex::new(BTreeMap::new());

fn live() -> MutexGuard<'static, BTreeMap<u64, usize>> {
    LIVE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Returns address and size of the memory that contains `address`.
pub(crate) fn live_around(address: u64) -> Option<(u64, usize)> {
    let memory = live();
    let (start, bytes) = memory.range(..=address).next_back()?;
    (address <= start + *bytes as u64).then_some((*start, *bytes))
}

/// Elements that a kernel reads or writes. Dropping it checks that the bytes around them are
/// unchanged.
#[derive(Debug)]
pub struct Memory<T: Element> {
    base: *mut u8,
    data: *mut u8,
    len: usize,
    offset: usize,
    element: PhantomData<T>,
}

impl<T: Element> Memory<T> {
    /// Copies `values`.
    pub fn of(values: &[T]) -> Self {
        Self::at_offset(values, 0)
    }

    /// Copies `values` to `offset` elements past a multiple of 16 bytes, where a run within a
    /// larger buffer may start.
    pub fn at_offset(values: &[T], offset: usize) -> Self {
        let mut memory = Self::poisoned(values.len(), offset);
        memory.values_mut().copy_from_slice(values);
        memory
    }

    /// Allocates `len` elements of NaN (integers: all bits set).
    pub fn poisoned(len: usize, offset: usize) -> Self {
        let mut base = std::ptr::null_mut();
        let offset = offset * T::SIZE;
        let data = native::allocate(len * T::SIZE, offset, &mut base);
        live().insert(data as u64, len * T::SIZE);
        Self { base, data, len, offset, element: PhantomData }
    }

    /// Returns the address as a kernel argument.
    pub fn arg(&self) -> Arg {
        Arg::Pointer(self.address())
    }

    pub fn address(&self) -> u64 {
        self.data as u64
    }

    pub fn values(&self) -> &[T] {
        // SAFETY: `data` holds `len` aligned elements, and all bit patterns are valid.
        unsafe { std::slice::from_raw_parts(self.data.cast(), self.len) }
    }

    pub fn values_mut(&mut self) -> &mut [T] {
        // SAFETY: as in `values`, and unique by &mut self.
        unsafe { std::slice::from_raw_parts_mut(self.data.cast(), self.len) }
    }

    pub fn to_f32(&self) -> Vec<f32> {
        self.values().iter().map(|v| v.to_f32()).collect()
    }

    /// Returns the values as f64.
    pub fn wide(&self) -> Vec<f64> {
        self.values().iter().map(|v| f64::from(v.to_f32())).collect()
    }

    /// Restores the bytes around the memory and poisons its contents, for tests of kernels that
    /// corrupt it.
    pub fn repair(&mut self) {
        let (len, offset) = (self.len, self.offset / T::SIZE);
        live().remove(&self.address());
        native::release(self.base, len * T::SIZE, self.offset);
        let fresh = std::mem::ManuallyDrop::new(Self::poisoned(len, offset));
        (self.base, self.data) = (fresh.base, fresh.data);
    }

    /// Returns whether the bytes around the memory are unchanged.
    pub fn is_intact(&self) -> bool {
        native::is_intact(self.base, self.data, self.len * T::SIZE, self.offset)
    }
}

impl<T: Element> Drop for Memory<T> {
    fn drop(&mut self) {
        let intact = self.is_intact();
        live().remove(&self.address());
        native::release(self.base, self.len * T::SIZE, self.offset);
        assert!(intact || std::thread::panicking(), "a kernel wrote before or after a buffer");
    }
}

#[cfg(not(no_cpp_compiler))]
mod native {
    use std::ffi::c_int;

    unsafe extern "C" {
        fn kindling_kernel_emulator_allocate(
            bytes: usize,
            offset: usize,
            base: *mut *mut u8,
        ) -> *mut u8;
        fn kindling_kernel_emulator_is_intact(
            base: *const u8,
            data: *const u8,
            bytes: usize,
            offset: usize,
        ) -> c_int;
        fn kindling_kernel_emulator_release(base: *mut u8, bytes: usize, offset: usize);
    }

    pub fn allocate(bytes: usize, offset: usize, base: &mut *mut u8) -> *mut u8 {
        // SAFETY: returns fresh memory or aborts.
        unsafe { kindling_kernel_emulator_allocate(bytes, offset, base) }
    }

    pub fn is_intact(base: *const u8, data: *const u8, bytes: usize, offset: usize) -> bool {
        // SAFETY: pointers from `allocate`, with the same sizes.
        unsafe { kindling_kernel_emulator_is_intact(base, data, bytes, offset) == 1 }
    }

    pub fn release(base: *mut u8, bytes: usize, offset: usize) {
        // SAFETY: as above, once.
        unsafe { kindling_kernel_emulator_release(base, bytes, offset) }
    }
}

#[cfg(no_cpp_compiler)]
mod native {
    pub fn allocate(_bytes: usize, _offset: usize, _base: &mut *mut u8) -> *mut u8 {
        panic!("built without a C++ compiler")
    }

    pub fn is_intact(_base: *const u8, _data: *const u8, _bytes: usize, _offset: usize) -> bool {
        true
    }

    pub fn release(_base: *mut u8, _bytes: usize, _offset: usize) {}
}
