//! A CUDA device as the ops see it: memory, launches, products and scratch memory over a `Driver`.
//!
//! Ops queue work and return; only `download` and `synchronize` wait. Work runs in the order it was
//! queued, so memory may be released or reused as soon as its last use is queued.

mod driver;
mod launch;
mod memory;
#[cfg(feature = "cuda")]
mod native;
mod plain;

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub use driver::{Driver, Factor, Product, Properties, Rows};
pub use launch::{Arg, Launch};
pub use memory::DeviceMemory;
use memory::Usage;
pub use plain::Plain;
use plain::{bytes_of, bytes_of_mut};

use crate::Result;
use crate::cpu::{Cpu, MatmulBackend};
use crate::dtype::Dtype;
use crate::profile::Profile;
use crate::simd::Isa;

/// Alignment of each part of an op's scratch memory, in bytes.
const SCRATCH_ALIGNMENT: usize = 256;

/// Arithmetic of a CUDA device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arithmetic {
    /// Dtype of matmul operands and of the activations between products.
    pub dtype: Dtype,
    /// Allows f32 products to round operands to `TensorFloat-32`.
    pub tf32: bool,
}

/// A CUDA device.
#[derive(Debug)]
pub struct Cuda {
    pub arithmetic: Arithmetic,
    /// Time spent in each op while profiling is on.
    pub profile: Profile,
    /// CPU for work done on the host, such as drawing initial weights.
    pub(crate) host: Cpu,
    /// Declared before `driver`, because dropping it releases memory through the driver.
    scratch: Mutex<Option<DeviceMemory>>,
    counters: Mutex<Option<DeviceMemory>>,
    usage: Arc<Usage>,
    driver: Arc<dyn Driver>,
}

impl Cuda {
    /// Wraps `driver`. Host work uses `threads` threads.
    pub fn new(driver: Arc<dyn Driver>, arithmetic: Arithmetic, threads: usize) -> Self {
        let waiting = Arc::clone(&driver);
        Self {
            arithmetic,
            // An error surfaces in the next call that returns a result.
            profile: Profile::with_synchronize(move || drop(waiting.synchronize())),
            host: Cpu::new(threads, Isa::detect(), MatmulBackend::Gemm),
            scratch: Mutex::default(),
            counters: Mutex::default(),
            usage: Arc::default(),
            driver,
        }
    }

    /// Opens device `ordinal` of this machine.
    ///
    /// # Errors
    /// Returns `ERR_DEVICE_UNAVAILABLE` naming what is missing.
    pub fn open(ordinal: usize, arithmetic: Arithmetic, threads: usize) -> Result<Self> {
        Ok(Self::new(open_driver(ordinal)?, arithmetic, threads))
    }

    /// Returns the device's properties.
    pub fn properties(&self) -> &Properties {
        self.driver.properties()
    }

    /// Returns the peak number of bytes in use.
    pub fn peak_bytes(&self) -> u64 {
        self.usage.peak.load(Ordering::Relaxed)
    }

    /// Allocates `bytes` of zeroed memory.
    ///
    /// # Errors
    /// Returns `ERR_OUT_OF_MEMORY` with the bytes requested and in use, or `ERR_DEVICE`.
    pub fn zeros(&self, bytes: usize) -> Result<DeviceMemory> {
        let memory = DeviceMemory::new(&self.driver, &self.usage, bytes)?;
        self.driver.clear(memory.pointer(), bytes)?;
        Ok(memory)
    }

    /// Queues launches in order, skipping those with an empty grid.
    ///
    /// # Errors
    /// Returns `ERR_DEVICE`.
    pub fn run(&self, launches: &[Launch]) -> Result<()> {
        launches
            .iter()
            .filter(|launch| !launch.is_empty())
            .try_for_each(|launch| self.driver.launch(launch))
    }

    /// Queues a product unless its output is empty.
    ///
    /// # Errors
    /// Returns `ERR_DEVICE`.
    pub fn multiply(&self, product: &Product) -> Result<()> {
        if product.m == 0 || product.n == 0 { Ok(()) } else { self.driver.multiply(product) }
    }

    /// Queues the zeroing of `bytes` at `pointer`.
    ///
    /// # Errors
    /// Returns `ERR_DEVICE`.
    pub fn clear(&self, pointer: u64, bytes: usize) -> Result<()> {
        if bytes == 0 { Ok(()) } else { self.driver.clear(pointer, bytes) }
    }

    /// Queues a copy of `count` rows of `bytes` within the device.
    ///
    /// # Errors
    /// Returns `ERR_DEVICE`.
    pub fn copy_rows(&self, to: Rows, from: Rows, bytes: usize, count: usize) -> Result<()> {
        if bytes == 0 || count == 0 {
            Ok(())
        } else {
            self.driver.copy_rows(to, from, bytes, count)
        }
    }

    /// Copies `values` to the device. `values` may be reused on return.
    ///
    /// # Errors
    /// Returns `ERR_DEVICE`.
    pub fn upload<T: Plain>(&self, pointer: u64, values: &[T]) -> Result<()> {
        if values.is_empty() { Ok(()) } else { self.driver.upload(pointer, bytes_of(values)) }
    }

    /// Copies from the device into `values`, after all queued work.
    ///
    /// # Errors
    /// Returns `ERR_DEVICE` if any of that work failed.
    pub fn download<T: Plain>(&self, values: &mut [T], pointer: u64) -> Result<()> {
        if values.is_empty() { Ok(()) } else { self.driver.download(bytes_of_mut(values), pointer) }
    }

    /// Runs `work`, whose launches and products are the same in most calls, so that the device may
    /// queue them all at once.
    ///
    /// # Errors
    /// Returns the error of `work`, or `ERR_DEVICE`.
    pub fn recorded<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<T> {
        self.driver.start_recording();
        let result = work();
        let queued = self.driver.finish_recording();
        result.and_then(|value| queued.map(|()| value))
    }

    /// Returns the algorithms of the products so far, as `Driver::algorithms` does.
    pub fn algorithms(&self) -> Option<String> {
        self.driver.algorithms()
    }

    /// Uses the algorithms of an earlier run, as `Driver::use_algorithms` does.
    pub fn use_algorithms(&self, stored: &str) -> bool {
        self.driver.use_algorithms(stored)
    }

    /// Waits for all queued work.
    ///
    /// # Errors
    /// Returns `ERR_DEVICE` if any of it failed.
    pub fn synchronize(&self) -> Result<()> {
        self.driver.synchronize()
    }

    /// Returns N scratch areas of the given sizes in bytes. They are valid for the work one op
    /// queues; the next call returns the same memory.
    ///
    /// # Errors
    /// Returns `ERR_OUT_OF_MEMORY` or `ERR_DEVICE`.
    pub fn scratch<const N: usize>(&self, bytes: [usize; N]) -> Result<[u64; N]> {
        let sizes = bytes.map(scratch_bytes);
        let needed = sizes.iter().sum();
        let mut memory = self.scratch_memory();
        if memory.as_ref().is_none_or(|memory| memory.bytes() < needed) {
            // Free the old memory first, so that both are never held at once.
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

    /// Copies `values` into scratch memory and returns their address.
    ///
    /// # Errors
    /// Returns `ERR_OUT_OF_MEMORY` or `ERR_DEVICE`.
    pub fn staged<T: Plain>(&self, values: &[T]) -> Result<u64> {
        let [pointer] = self.scratch([size_of_val(values)])?;
        self.upload(pointer, values)?;
        Ok(pointer)
    }

    /// Returns the address of at least `count` i32 that are zero. Work that is queued on them must
    /// leave them zero.
    ///
    /// # Errors
    /// Returns `ERR_OUT_OF_MEMORY` or `ERR_DEVICE`.
    pub fn zeroed_counters(&self, count: usize) -> Result<u64> {
        let needed = count * size_of::<i32>();
        let mut memory = self.counters.lock().unwrap_or_else(PoisonError::into_inner);
        if memory.as_ref().is_none_or(|memory| memory.bytes() < needed) {
            *memory = None;
            *memory = Some(self.zeros(needed)?);
        }
        Ok(memory.as_ref().map_or(0, DeviceMemory::pointer))
    }

    fn scratch_memory(&self) -> MutexGuard<'_, Option<DeviceMemory>> {
        self.scratch.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns the bytes of scratch memory that a request for `bytes` takes.
pub(crate) fn scratch_bytes(bytes: usize) -> usize {
    bytes.next_multiple_of(SCRATCH_ALIGNMENT)
}

/// Returns the number of CUDA devices this build can use.
pub fn device_count() -> usize {
    #[cfg(feature = "cuda")]
    return native::device_count();
    #[cfg(not(feature = "cuda"))]
    0
}

/// Explains why a GPU that is present cannot be used. Returns `None` if it can be, or if there is
/// none.
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
    Err(crate::Error::DeviceUnavailable(
        "this build has no CUDA support; use --device cpu".to_owned(),
    ))
}
