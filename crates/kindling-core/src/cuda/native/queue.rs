//! Queues work on the device's stream, by calls to the driver and to cuBLASLt.

use std::ffi::c_void;

use cudarc::driver::{result, sys};

use super::Native;
use super::error::failed;
use super::graph::Work;
use crate::cuda::driver::{Product, Rows};
use crate::cuda::{Arg, Launch};
use crate::{Error, Result};

impl Native {
    /// Queues work in order.
    pub(super) fn queue(&self, all: &[Work]) -> Result<()> {
        all.iter().try_for_each(|work| match work {
            Work::Launch(launch) => self.queue_launch(launch),
            Work::Product(product) => self.queue_product(product),
            Work::Clear { pointer, bytes } => self.queue_clear(*pointer, *bytes),
            Work::CopyRows { to, from, bytes, count } => {
                self.queue_copy(*to, *from, *bytes, *count)
            }
        })
    }

    pub(super) fn queue_clear(&self, pointer: u64, bytes: usize) -> Result<()> {
        self.bind()?;
        // SAFETY: the caller owns `bytes` at `pointer`.
        unsafe { result::memset_d8_async(pointer, 0, bytes, self.stream.cu_stream()) }
            .map_err(failed)
    }

    pub(super) fn queue_copy(
        &self,
        to: Rows,
        from: Rows,
        bytes: usize,
        count: usize,
    ) -> Result<()> {
        self.bind()?;
        let device = sys::CUmemorytype::CU_MEMORYTYPE_DEVICE;
        let copy = sys::CUDA_MEMCPY2D {
            srcXInBytes: 0,
            srcY: 0,
            srcMemoryType: device,
            srcHost: std::ptr::null(),
            srcDevice: from.pointer,
            srcArray: std::ptr::null_mut(),
            srcPitch: from.pitch,
            dstXInBytes: 0,
            dstY: 0,
            dstMemoryType: device,
            dstHost: std::ptr::null_mut(),
            dstDevice: to.pointer,
            dstArray: std::ptr::null_mut(),
            dstPitch: to.pitch,
            WidthInBytes: bytes,
            Height: count,
        };
        // SAFETY: the caller owns the rows on both sides; the descriptor is read before the call
        // returns.
        unsafe { sys::cuMemcpy2DAsync_v2(&raw const copy, self.stream.cu_stream()) }
            .result()
            .map_err(failed)
    }

    pub(super) fn queue_launch(&self, launch: &Launch) -> Result<()> {
        self.bind()?;
        let function = self.kernels.function(launch)?;
        let mut args: Vec<*mut c_void> = launch
            .args
            .iter()
            .map(|arg| match arg {
                Arg::Pointer(value) => std::ptr::from_ref(value).cast_mut().cast(),
                Arg::I32(value) => std::ptr::from_ref(value).cast_mut().cast(),
                Arg::I64(value) => std::ptr::from_ref(value).cast_mut().cast(),
                Arg::F32(value) => std::ptr::from_ref(value).cast_mut().cast(),
            })
            .collect();
        let [x, y, z] = launch.grid;
        // SAFETY: the arguments have the kernel's types (the kernel emulator's tests compare every
        // launch with its kernel) and are copied before the call returns. The buffers they point to
        // live until the work queued here is done.
        unsafe {
            let (block, stream) = ((launch.block, 1, 1), self.stream.cu_stream());
            result::launch_kernel(
                function,
                (x, y, z),
                block,
                launch.shared_bytes,
                stream,
                &mut args,
            )
        }
        .map_err(|error| {
            Error::Device(format!("{} cannot be launched: {:?}", launch.kernel, error.0))
        })?;
        self.check_now(|| launch.kernel.to_owned())
    }

    pub(super) fn queue_product(&self, product: &Product) -> Result<()> {
        self.bind()?;
        self.products.multiply(product)?;
        self.check_now(|| format!("a product of {} x {} x {}", product.m, product.k, product.n))
    }

    /// Waits for the work just queued if `KINDLING_CUDA_SYNC=1`; an error then names `work`.
    fn check_now(&self, work: impl FnOnce() -> String) -> Result<()> {
        if !self.synchronous {
            return Ok(());
        }
        let done = self.stream.synchronize();
        done.map_err(|error| Error::Device(format!("{} failed: {:?}", work(), error.0)))
    }
}
