//! What the engine asks of a CUDA device: memory, copies, launches and matrix products, all in order on one queue.
//!
//! The real one is `native` (feature `cuda`); tests put one in its place that runs the same launches on the processor.

use crate::Result;
use crate::cuda::Launch;
use crate::dtype::Dtype;

/// A matrix product over device memory, row-major: out (m, n) = a b, or out += a b where `accumulate`; sums are f32.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Product {
    /// Rows of out.
    pub m: usize,
    /// Columns of a, rows of b.
    pub k: usize,
    /// Columns of out.
    pub n: usize,
    /// (m, k), or (k, m) where it is turned.
    pub a: Factor,
    /// (k, n), or (n, k) where it is turned.
    pub b: Factor,
    /// Elements of a and b.
    pub operands: Dtype,
    /// (m, n).
    pub out: u64,
    /// Elements of out; f32 operands have f32 results.
    pub results: Dtype,
    /// Add to out.
    pub accumulate: bool,
    /// Products of f32 may be rounded to `TensorFloat-32`.
    pub tf32: bool,
}

/// A matrix that is multiplied, as it lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Factor {
    /// Address of its first element.
    pub pointer: u64,
    /// It lies transposed.
    pub turned: bool,
}

/// Rows of bytes at equal distances in device memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rows {
    /// Address of the first.
    pub pointer: u64,
    /// Bytes from one to the next.
    pub pitch: usize,
}

/// What a device is.
#[derive(Debug, Clone, PartialEq)]
pub struct Properties {
    /// Its name, as the driver gives it.
    pub name: String,
    /// Bytes of memory.
    pub memory: u64,
}

/// A CUDA device and one queue of work on it. Calls return before the work is done, unless they say otherwise.
pub trait Driver: std::fmt::Debug + Send + Sync {
    /// What it is.
    fn properties(&self) -> &Properties;

    /// `bytes` of memory, not cleared, its address a multiple of 256.
    ///
    /// # Errors
    /// `ERR_OUT_OF_MEMORY`, `ERR_DEVICE`.
    fn allocate(&self, bytes: usize) -> Result<u64>;

    /// Gives memory back, once the work that was queued before is done.
    fn release(&self, pointer: u64, bytes: usize);

    /// Sets memory to zero.
    ///
    /// # Errors
    /// `ERR_DEVICE`.
    fn clear(&self, pointer: u64, bytes: usize) -> Result<()>;

    /// Copies from the host, whose memory is free again on return.
    ///
    /// # Errors
    /// `ERR_DEVICE`.
    fn upload(&self, pointer: u64, from: &[u8]) -> Result<()>;

    /// Copies to the host; waits for the copy, and so for all work queued before.
    ///
    /// # Errors
    /// `ERR_DEVICE`.
    fn download(&self, to: &mut [u8], pointer: u64) -> Result<()>;

    /// Copies `count` rows of `bytes` within the device.
    ///
    /// # Errors
    /// `ERR_DEVICE`.
    fn copy_rows(&self, to: Rows, from: Rows, bytes: usize, count: usize) -> Result<()>;

    /// Runs a kernel.
    ///
    /// # Errors
    /// `ERR_DEVICE`.
    fn launch(&self, launch: &Launch) -> Result<()>;

    /// Computes a product.
    ///
    /// # Errors
    /// `ERR_DEVICE`.
    fn multiply(&self, product: &Product) -> Result<()>;

    /// Waits for all work queued before.
    ///
    /// # Errors
    /// `ERR_DEVICE` where some of it failed.
    fn synchronize(&self) -> Result<()>;
}
