//! Memory for kernels: it ends at a page that no one may touch, and what lies before and after it is watched.

use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::sync::{Mutex, MutexGuard, PoisonError};

use kindling_core::cuda::Arg;

/// What memory can hold.
pub trait Element: Copy {
    /// Kept as these bytes.
    const SIZE: usize;
    /// From f32, rounded to nearest even.
    fn from_f32(x: f32) -> Self;
    /// To f32, exactly.
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

/// Integers are kept as they are; they have no f32.
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

/// All memory there is: bytes by address.
static LIVE: Mutex<BTreeMap<u64, usize>> = Mutex::new(BTreeMap::new());

fn live() -> MutexGuard<'static, BTreeMap<u64, usize>> {
    LIVE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Address and bytes of the memory that `address` lies in.
pub(crate) fn live_around(address: u64) -> Option<(u64, usize)> {
    let memory = live();
    let (start, bytes) = memory.range(..=address).next_back()?;
    (address <= start + *bytes as u64).then_some((*start, *bytes))
}

/// Elements that a kernel reads or writes. Checked when dropped: what lies around them has to be as it was.
#[derive(Debug)]
pub struct Memory<T: Element> {
    base: *mut u8,
    data: *mut u8,
    len: usize,
    offset: usize,
    element: PhantomData<T>,
}

impl<T: Element> Memory<T> {
    /// A copy of `values`.
    pub fn of(values: &[T]) -> Self {
        Self::at_offset(values, 0)
    }

    /// A copy of `values` that starts `offset` elements past a multiple of 16 bytes, as a run of a larger buffer may.
    pub fn at_offset(values: &[T], offset: usize) -> Self {
        let mut memory = Self::poisoned(values.len(), offset);
        memory.values_mut().copy_from_slice(values);
        memory
    }

    /// `len` elements full of NaN (integers: all bits set).
    pub fn poisoned(len: usize, offset: usize) -> Self {
        let mut base = std::ptr::null_mut();
        let offset = offset * T::SIZE;
        let data = native::allocate(len * T::SIZE, offset, &mut base);
        live().insert(data as u64, len * T::SIZE);
        Self { base, data, len, offset, element: PhantomData }
    }

    /// Its address, as an argument.
    pub fn arg(&self) -> Arg {
        Arg::Pointer(self.address())
    }

    /// Its address.
    pub fn address(&self) -> u64 {
        self.data as u64
    }

    /// What it holds.
    pub fn values(&self) -> &[T] {
        // SAFETY: `data` has room for `len` elements, aligned, all bit patterns valid for the element types.
        unsafe { std::slice::from_raw_parts(self.data.cast(), self.len) }
    }

    /// What it holds, to be changed.
    pub fn values_mut(&mut self) -> &mut [T] {
        // SAFETY: as in `values`, and unique by &mut self.
        unsafe { std::slice::from_raw_parts_mut(self.data.cast(), self.len) }
    }

    /// What it holds, as f32.
    pub fn to_f32(&self) -> Vec<f32> {
        self.values().iter().map(|v| v.to_f32()).collect()
    }

    /// What it holds, as f64.
    pub fn wide(&self) -> Vec<f64> {
        self.values().iter().map(|v| f64::from(v.to_f32())).collect()
    }

    /// Makes what lies around it as it was, its own contents poisoned: for a test of a kernel that spoils it.
    pub fn repair(&mut self) {
        let (len, offset) = (self.len, self.offset / T::SIZE);
        live().remove(&self.address());
        native::release(self.base, len * T::SIZE, self.offset);
        let fresh = std::mem::ManuallyDrop::new(Self::poisoned(len, offset));
        (self.base, self.data) = (fresh.base, fresh.data);
    }

    /// Whether what lies around it is as it was.
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
        // SAFETY: gives fresh memory or ends the process.
        unsafe { kindling_kernel_emulator_allocate(bytes, offset, base) }
    }

    pub fn is_intact(base: *const u8, data: *const u8, bytes: usize, offset: usize) -> bool {
        // SAFETY: what `allocate` gave, with the same sizes.
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
