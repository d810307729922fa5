//! `Driver` for a real GPU. candle provides the context, the stream and the cuBLAS handle; memory,
//! copies and launches use the stream directly. CUDA's libraries are loaded when a device is
//! opened; this crate does not link to them.

mod error;
mod kernels;
mod libraries;
mod staging;

use std::ffi::c_void;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use candle_core::CudaDevice;
use candle_core::cuda_backend::cudarc;
use cudarc::cublas::{CudaBlas, sys as blas};
use cudarc::driver::{CudaContext, CudaStream, DriverError, result, sys};

use super::driver::{Driver, Product, Properties, Rows};
use crate::cuda::{Arg, Launch};
use crate::dtype::Dtype;
use crate::{Error, Result};
use error::failed;
use kernels::Kernels;
use staging::Staging;

pub(super) use libraries::{device_count, problem};

/// cuBLAS workspace: the size it recommends on Hopper.
const WORKSPACE_BYTES: usize = 32 << 20;

/// A GPU and its stream.
#[derive(Debug)]
pub(super) struct Native {
    properties: Properties,
    kernels: Kernels,
    staging: Mutex<Staging>,
    blas: Arc<CudaBlas>,
    workspace: u64,
    stream: Arc<CudaStream>,
    context: Arc<CudaContext>,
}

impl Native {
    pub fn open(ordinal: usize) -> Result<Self> {
        libraries::check()?;
        let count = device_count();
        if ordinal >= count {
            return Err(Error::DeviceUnavailable(format!(
                "cuda:{ordinal} does not exist: the driver lists {count} devices; check CUDA_VISIBLE_DEVICES or use --device cpu"
            )));
        }
        // cudarc panics if a library lacks a function.
        let device = std::panic::catch_unwind(|| CudaDevice::new_with_stream(ordinal))
            .map_err(|_| {
                Error::DeviceUnavailable(
                    "CUDA's libraries are older than this build needs (CUDA 13.0, driver 580)"
                        .to_owned(),
                )
            })?
            .map_err(|error| {
                Error::DeviceUnavailable(format!("cuda:{ordinal} cannot be opened: {error}"))
            })?;
        // SAFETY: only this stream uses the memory, so there are no events to track.
        unsafe { device.disable_event_tracking() };
        let stream = device.cuda_stream();
        let context = Arc::clone(stream.context());
        let unavailable = |error: DriverError| {
            Error::DeviceUnavailable(format!("cuda:{ordinal} cannot be used: {:?}", error.0))
        };
        let properties = Properties {
            name: context.name().map_err(unavailable)?,
            memory: context.total_mem().map_err(unavailable)? as u64,
        };
        let architecture = context.compute_capability().map_err(unavailable)?;
        if let Some(what) = libraries::too_old((properties.name.clone(), architecture)) {
            return Err(Error::DeviceUnavailable(what));
        }
        keep_memory(&context).map_err(unavailable)?;
        let kernels = Kernels::load(&context)?;
        let blas = device.cublas_handle();
        let mut native = Self {
            properties,
            kernels,
            staging: Mutex::default(),
            blas,
            workspace: 0,
            stream,
            context,
        };
        native.workspace = native.allocate(WORKSPACE_BYTES).map_err(|error| match error {
            Error::OutOfMemory { bytes } => {
                Error::OutOfDeviceMemory { bytes, in_use: 0, total: native.properties.memory }
            }
            other => other,
        })?;
        native.prepare_blas()?;
        Ok(native)
    }

    /// Sets our workspace, and keeps split-k sums of bf16 products in f32.
    fn prepare_blas(&self) -> Result<()> {
        let mode = blas::cublasMath_t::CUBLAS_MATH_DISALLOW_REDUCED_PRECISION_REDUCTION;
        // SAFETY: the handle is live; the workspace is `WORKSPACE_BYTES` of device memory that
        // outlives it.
        unsafe {
            let workspace = self.workspace as *mut c_void;
            blas::cublasSetWorkspace_v2(*self.blas.handle(), workspace, WORKSPACE_BYTES)
                .result()
                .and_then(|()| blas::cublasSetMathMode(*self.blas.handle(), mode).result())
        }
        .map_err(|error| Error::Device(format!("cuBLAS cannot be set up: {error}")))
    }

    fn bind(&self) -> Result<()> {
        self.context.bind_to_thread().map_err(failed)
    }

    fn staging(&self) -> MutexGuard<'_, Staging> {
        self.staging.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Keeps released memory in the pool instead of returning it to the system at each wait.
fn keep_memory(context: &CudaContext) -> Result<(), DriverError> {
    if !context.has_async_alloc() {
        return Ok(());
    }
    let mut threshold = u64::MAX;
    // SAFETY: the device is live, and the attribute is a u64.
    unsafe {
        let pool = result::device::get_default_mem_pool(context.cu_device())?;
        let attribute = sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD;
        result::mem_pool::set_attribute(pool, attribute, std::ptr::from_mut(&mut threshold).cast())
    }
}

impl Driver for Native {
    fn properties(&self) -> &Properties {
        &self.properties
    }

    fn allocate(&self, bytes: usize) -> Result<u64> {
        self.bind()?;
        // SAFETY: the stream is live; `release` frees the memory.
        let memory = unsafe {
            if self.context.has_async_alloc() {
                result::malloc_async(self.stream.cu_stream(), bytes)
            } else {
                result::malloc_sync(bytes)
            }
        };
        memory.map_err(|error| {
            if error.0 == sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY {
                Error::OutOfMemory { bytes: bytes as u64 }
            } else {
                failed(error)
            }
        })
    }

    fn release(&self, pointer: u64, _bytes: usize) {
        if self.bind().is_err() {
            return;
        }
        // An error cannot be reported here; the next call on the stream returns it.
        // SAFETY: the memory came from `allocate`, and its last use is already queued.
        let _ = unsafe {
            if self.context.has_async_alloc() {
                result::free_async(pointer, self.stream.cu_stream())
            } else {
                self.stream.synchronize().and_then(|()| result::free_sync(pointer))
            }
        };
    }

    fn clear(&self, pointer: u64, bytes: usize) -> Result<()> {
        self.bind()?;
        // SAFETY: the caller owns `bytes` at `pointer`.
        unsafe { result::memset_d8_async(pointer, 0, bytes, self.stream.cu_stream()) }
            .map_err(failed)
    }

    fn upload(&self, pointer: u64, from: &[u8]) -> Result<()> {
        self.bind()?;
        self.staging().upload(&self.stream, pointer, from)
    }

    fn download(&self, to: &mut [u8], pointer: u64) -> Result<()> {
        self.bind()?;
        // SAFETY: the caller owns that many bytes at `pointer`, and `to` is not read before the
        // wait below.
        unsafe { result::memcpy_dtoh_async(to, pointer, self.stream.cu_stream()) }
            .and_then(|()| self.stream.synchronize())
            .map_err(failed)
    }

    fn copy_rows(&self, to: Rows, from: Rows, bytes: usize, count: usize) -> Result<()> {
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

    fn launch(&self, launch: &Launch) -> Result<()> {
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
        })
    }

    fn multiply(&self, product: &Product) -> Result<()> {
        self.bind()?;
        let p = product;
        let (alpha, beta) = (1.0f32, if p.accumulate { 1.0f32 } else { 0.0 });
        let operation = |transposed| {
            if transposed {
                blas::cublasOperation_t::CUBLAS_OP_T
            } else {
                blas::cublasOperation_t::CUBLAS_OP_N
            }
        };
        let kind = |dtype| match dtype {
            Dtype::F32 => blas::cudaDataType_t::CUDA_R_32F,
            Dtype::Bf16 => blas::cudaDataType_t::CUDA_R_16BF,
        };
        let compute = if p.tf32 && p.operands == Dtype::F32 {
            blas::cublasComputeType_t::CUBLAS_COMPUTE_32F_FAST_TF32
        } else {
            blas::cublasComputeType_t::CUBLAS_COMPUTE_32F
        };
        let size = |size: usize| i32::try_from(size).unwrap_or(i32::MAX);
        let [m, k, n] = [p.m, p.k, p.n].map(size);
        let [of_a, of_b, of_out] = [p.a.leading, p.b.leading, p.out_leading].map(size);
        // cuBLAS is column-major: our rows of n are its (n, m), and out^T = b^T a^T.
        // SAFETY: the caller owns matrices of these sizes at these addresses; alpha and beta are
        // read before the call returns.
        unsafe {
            cudarc::cublas::result::gemm_ex(
                *self.blas.handle(),
                operation(p.b.transposed),
                operation(p.a.transposed),
                n,
                m,
                k,
                std::ptr::from_ref(&alpha).cast(),
                p.b.pointer as *const c_void,
                kind(p.operands),
                of_b,
                p.a.pointer as *const c_void,
                kind(p.operands),
                of_a,
                std::ptr::from_ref(&beta).cast(),
                p.out as *mut c_void,
                kind(p.results),
                of_out,
                compute,
                blas::cublasGemmAlgo_t::CUBLAS_GEMM_DEFAULT,
            )
        }
        .map_err(|error| Error::Device(format!("a product of {m} x {k} x {n} failed: {error}")))
    }

    fn synchronize(&self) -> Result<()> {
        self.stream.synchronize().map_err(failed)
    }
}

impl Drop for Native {
    fn drop(&mut self) {
        // Queued work may still use the staging memory and cuBLAS's workspace.
        let _ = self.stream.synchronize();
        if self.workspace != 0 {
            self.release(self.workspace, WORKSPACE_BYTES);
        }
    }
}
