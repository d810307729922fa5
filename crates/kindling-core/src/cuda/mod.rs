//! A CUDA device as the ops see it: memory, launches, products, and scratch memory, over a `Driver`.
//!
//! Ops queue their work and return; nothing waits for the device but `download`. Work of one device runs in the order
//! it was queued in, so memory may be given back, or used for something else, as soon as its last use is queued.

mod driver;
mod launch;
mod memory;
#[cfg(feature = "cuda")]
mod native;

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub use driver::{Driver, Factor, Product, Properties, Rows};
pub use launch::{Arg, Launch};
pub use memory::DeviceMemory;
use memory::Usage;

use crate::cpu::{Cpu, MatmulBackend};
use crate::dtype::Dtype;
use crate::ops::kernels::cast;
use crate::profile::Profile;
use crate::simd::Isa;
use crate::{Error, Result};

/// Scratch memory of one op starts at multiples of this.
const SCRATCH_ALIGNMENT: usize = 256;

/// Arithmetic on a CUDA device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arithmetic {
    /// Operands of products, and what lies between them.
    pub dtype: Dtype,
    /// Products of f32 may be rounded to `TensorFloat-32`.
    pub tf32: bool,
}

/// A CUDA device.
#[derive(Debug)]
pub struct Cuda {
    /// Arithmetic of the products.
    pub arithmetic: Arithmetic,
    /// Where the time goes, while somebody asks.
    pub profile: Profile,
    /// What is computed on the host: initial weights.
    pub(crate) host: Cpu,
    /// Before the driver, which it gives its memory back to.
    scratch: Mutex<Option<DeviceMemory>>,
    usage: Arc<Usage>,
    driver: Arc<dyn Driver>,
}

impl Cuda {
    /// The device behind `driver`; the host's part takes `threads` threads.
    pub fn new(driver: Arc<dyn Driver>, arithmetic: Arithmetic, threads: usize) -> Self {
        let waiting = Arc::clone(&driver);
        Self {
            arithmetic,
            // A failure shows in the next call that can say so.
            profile: Profile::waiting(move || drop(waiting.synchronize())),
            host: Cpu::new(threads, Isa::detect(), MatmulBackend::F32),
            scratch: Mutex::default(),
            usage: Arc::default(),
            driver,
        }
    }

    /// Device `ordinal` of this machine.
    ///
    /// # Errors
    /// `ERR_DEVICE_UNAVAILABLE` saying what is missing.
    pub fn open(ordinal: usize, arithmetic: Arithmetic, threads: usize) -> Result<Self> {
        Ok(Self::new(open_driver(ordinal)?, arithmetic, threads))
    }

    /// What the device is.
    pub fn properties(&self) -> &Properties {
        self.driver.properties()
    }

    /// The most bytes that were in use at once.
    pub fn peak_bytes(&self) -> u64 {
        self.usage.peak.load(Ordering::Relaxed)
    }

    /// `bytes` of memory set to zero.
    ///
    /// # Errors
    /// `ERR_OUT_OF_MEMORY` saying how much was asked for and what is in use, `ERR_DEVICE`.
    pub fn zeros(&self, bytes: usize) -> Result<DeviceMemory> {
        let memory = DeviceMemory::new(&self.driver, &self.usage, bytes)?;
        self.driver.clear(memory.pointer(), bytes)?;
        Ok(memory)
    }

    /// Queues launches, in order; those without work are left out.
    ///
    /// # Errors
    /// `ERR_DEVICE`.
    pub fn run(&self, launches: &[Launch]) -> Result<()> {
        launches
            .iter()
            .filter(|launch| !launch.is_empty())
            .try_for_each(|launch| self.driver.launch(launch))
    }

    /// Queues a product; one without elements is left out.
    ///
    /// # Errors
    /// `ERR_DEVICE`.
    pub fn multiply(&self, product: &Product) -> Result<()> {
        if product.m == 0 || product.n == 0 { Ok(()) } else { self.driver.multiply(product) }
    }

    /// Queues setting `bytes` to zero.
    ///
    /// # Errors
    /// `ERR_DEVICE`.
    pub fn clear(&self, pointer: u64, bytes: usize) -> Result<()> {
        if bytes == 0 { Ok(()) } else { self.driver.clear(pointer, bytes) }
    }

    /// Queues a copy within the device, `count` rows of `bytes`.
    ///
    /// # Errors
    /// `ERR_DEVICE`.
    pub fn copy_rows(&self, to: Rows, from: Rows, bytes: usize, count: usize) -> Result<()> {
        if bytes == 0 || count == 0 {
            Ok(())
        } else {
            self.driver.copy_rows(to, from, bytes, count)
        }
    }

    /// Copies numbers to the device; their memory is free again on return.
    ///
    /// # Errors
    /// `ERR_DEVICE`.
    pub fn upload<T: Plain>(&self, pointer: u64, values: &[T]) -> Result<()> {
        if values.is_empty() { Ok(()) } else { self.driver.upload(pointer, bytes_of(values)) }
    }

    /// Copies numbers from the device; waits for all work queued before.
    ///
    /// # Errors
    /// `ERR_DEVICE` where some of that work failed.
    pub fn download<T: Plain>(&self, values: &mut [T], pointer: u64) -> Result<()> {
        if values.is_empty() { Ok(()) } else { self.driver.download(bytes_of_mut(values), pointer) }
    }

    /// Waits for all work queued before.
    ///
    /// # Errors
    /// `ERR_DEVICE` where some of it failed.
    pub fn synchronize(&self) -> Result<()> {
        self.driver.synchronize()
    }

    /// Scratch memory of these many bytes each, for the work that one op queues: the next op has the same memory.
    ///
    /// # Errors
    /// `ERR_OUT_OF_MEMORY`, `ERR_DEVICE`.
    pub fn scratch<const N: usize>(&self, bytes: [usize; N]) -> Result<[u64; N]> {
        let sizes = bytes.map(|bytes| bytes.next_multiple_of(SCRATCH_ALIGNMENT));
        let needed = sizes.iter().sum();
        let mut memory = self.scratch_memory();
        if memory.as_ref().is_none_or(|memory| memory.bytes() < needed) {
            // The old memory goes first, so that both are never held at once.
            *memory = None;
            *memory = Some(DeviceMemory::new(&self.driver, &self.usage, needed)?);
        }
        let mut next = memory.as_ref().map_or(0, DeviceMemory::pointer);
        Ok(sizes.map(|size| {
            let pointer = next;
            next += size as u64;
            pointer
        }))
    }

    /// Numbers of the host in scratch memory.
    ///
    /// # Errors
    /// `ERR_OUT_OF_MEMORY`, `ERR_DEVICE`.
    pub fn staged<T: Plain>(&self, values: &[T]) -> Result<u64> {
        let [pointer] = self.scratch([size_of_val(values)])?;
        self.upload(pointer, values)?;
        Ok(pointer)
    }

    /// Queues the rounding, or widening, of `n` elements of `x` to `dtype`.
    ///
    /// # Errors
    /// `ERR_DEVICE`.
    pub fn cast(&self, dtype: Dtype, out: u64, x: u64, n: usize) -> Result<()> {
        if n == 0 { Ok(()) } else { self.run(&[cast(dtype, out, x, n)]) }
    }

    fn scratch_memory(&self) -> MutexGuard<'_, Option<DeviceMemory>> {
        self.scratch.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Number of CUDA devices that this build can use on this machine.
pub fn device_count() -> usize {
    #[cfg(feature = "cuda")]
    return native::device_count();
    #[cfg(not(feature = "cuda"))]
    0
}

/// What keeps a GPU that seems to be there from being used by this build; none where there is none, or nothing.
pub fn problem() -> Option<String> {
    #[cfg(feature = "cuda")]
    return native::problem();
    #[cfg(not(feature = "cuda"))]
    None
}

#[cfg(feature = "cuda")]
fn open_driver(ordinal: usize) -> Result<Arc<dyn Driver>> {
    Ok(Arc::new(native::Native::open(ordinal)?))
}

#[cfg(not(feature = "cuda"))]
fn open_driver(_ordinal: usize) -> Result<Arc<dyn Driver>> {
    Err(Error::DeviceUnavailable("this build has no CUDA support; use --device cpu".to_owned()))
}

/// Numbers that are their bytes.
pub trait Plain: Copy + sealed::Sealed {}

mod sealed {
    /// Types without padding, for which every pattern of bits is a value.
    pub trait Sealed {}
    impl Sealed for u8 {}
    impl Sealed for u16 {}
    impl Sealed for u32 {}
    impl Sealed for i32 {}
    impl Sealed for f32 {}
    impl Sealed for f64 {}
}
impl<T: Copy + sealed::Sealed> Plain for T {}

fn bytes_of<T: Plain>(values: &[T]) -> &[u8] {
    // SAFETY: the types have no padding; as many bytes as the slice has.
    unsafe { std::slice::from_raw_parts(values.as_ptr().cast(), size_of_val(values)) }
}

fn bytes_of_mut<T: Plain>(values: &mut [T]) -> &mut [u8] {
    // SAFETY: as above, and every pattern of bits is a value of the types.
    unsafe { std::slice::from_raw_parts_mut(values.as_mut_ptr().cast(), size_of_val(values)) }
}

/// An error of a device that has more than its memory as a cause.
pub fn device_error(what: &str, cause: impl std::fmt::Display) -> Error {
    Error::Device(format!("{what}: {cause}"))
}
