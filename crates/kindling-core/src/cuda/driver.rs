//! The `Driver` trait: memory, copies, launches and matrix products on one in-order queue of a CUDA
//! device.
//!
//! `native` (feature `cuda`) implements it for a real GPU. Tests implement it by running the same
//! launches on the CPU.

use crate::Result;
use crate::cuda::Launch;
use crate::dtype::Dtype;

/// A row-major matrix product over device memory: out (m, n) = a b, or out += a b if `accumulate`.
/// Accumulates in f32.
///
/// The leading dimension of a matrix is the number of elements from one of its rows, as they are
/// stored, to the next. What lies between rows is neither read nor written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Product {
    pub m: usize,
    pub k: usize,
    pub n: usize,
    /// (m, k), or (k, m) if transposed.
    pub a: Factor,
    /// (k, n), or (n, k) if transposed.
    pub b: Factor,
    /// Dtype of a and b.
    pub operands: Dtype,
    /// Address of out (m, n).
    pub out: u64,
    /// At least n.
    pub out_leading: usize,
    /// Dtype of out. f32 operands produce f32 results.
    pub results: Dtype,
    pub accumulate: bool,
    /// Allows f32 operands to be rounded to `TensorFloat-32`.
    pub tf32: bool,
}

/// An operand of a product.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Factor {
    /// Address of the first element.
    pub pointer: u64,
    /// The matrix is stored as its transpose.
    pub transposed: bool,
    /// At least the width of the matrix as it is stored.
    pub leading: usize,
}

/// Equally spaced rows of bytes in device memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rows {
    /// Address of the first row.
    pub pointer: u64,
    /// Bytes from one row to the next.
    pub pitch: usize,
}

/// The properties of a device, as its driver reports them.
#[derive(Debug, Clone, PartialEq)]
pub struct Properties {
    /// Name reported by the driver.
    pub name: String,
    /// Memory in bytes.
    pub memory: u64,
    /// Multiprocessors, which decide how many tiles of a product run at once.
    pub multiprocessors: usize,
    /// Compute capability, major and minor.
    pub capability: (i32, i32),
}

impl Properties {
    /// Returns whether the device runs code for `sm_90a`, which no other generation does.
    pub fn is_hopper(&self) -> bool {
        self.capability == (9, 0)
    }
}

/// A CUDA device and one in-order queue on it. Calls return before the work is done unless they say
/// otherwise.
pub trait Driver: std::fmt::Debug + Send + Sync {
    /// Returns the device's properties.
    fn properties(&self) -> &Properties;

    /// Allocates `bytes` of uninitialised memory at a multiple of 256.
    ///
    /// # Errors
    /// Returns `ERR_OUT_OF_MEMORY` or `ERR_DEVICE`.
    fn allocate(&self, bytes: usize) -> Result<u64>;

    /// Frees memory once all queued work is done.
    fn release(&self, pointer: u64, bytes: usize);

    /// Sets memory to zero.
    ///
    /// # Errors
    /// Returns `ERR_DEVICE`.
    fn clear(&self, pointer: u64, bytes: usize) -> Result<()>;

    /// Copies from the host. `from` may be reused on return.
    ///
    /// # Errors
    /// Returns `ERR_DEVICE`.
    fn upload(&self, pointer: u64, from: &[u8]) -> Result<()>;

    /// Copies to the host after all queued work, and waits for the copy.
    ///
    /// # Errors
    /// Returns `ERR_DEVICE`.
    fn download(&self, to: &mut [u8], pointer: u64) -> Result<()>;

    /// Copies `count` rows of `bytes` within the device.
    ///
    /// # Errors
    /// Returns `ERR_DEVICE`.
    fn copy_rows(&self, to: Rows, from: Rows, bytes: usize, count: usize) -> Result<()>;

    /// Runs a kernel.
    ///
    /// # Errors
    /// Returns `ERR_DEVICE`.
    fn launch(&self, launch: &Launch) -> Result<()>;

    /// Computes a matrix product.
    ///
    /// # Errors
    /// Returns `ERR_DEVICE`.
    fn multiply(&self, product: &Product) -> Result<()>;

    /// Starts to record work that is likely to repeat. Until `finish_recording`, or until a call
    /// that waits or frees memory, the device may hold back what is queued.
    fn start_recording(&self) {}

    /// Queues what was held back.
    ///
    /// # Errors
    /// Returns `ERR_DEVICE`.
    fn finish_recording(&self) -> Result<()> {
        Ok(())
    }

    /// Returns the algorithms of the products so far, by shape, for `use_algorithms` of a later
    /// run, or `None` if the device has no choice of algorithms.
    fn algorithms(&self) -> Option<String> {
        None
    }

    /// Uses the algorithms of an earlier run, so that products have the same bits. Returns whether
    /// they apply to this device.
    fn use_algorithms(&self, _stored: &str) -> bool {
        false
    }

    /// Waits for all queued work.
    ///
    /// # Errors
    /// Returns `ERR_DEVICE` if any of it failed.
    fn synchronize(&self) -> Result<()>;
}
