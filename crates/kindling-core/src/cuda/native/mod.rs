//! `Driver` for a real GPU, by cudarc's bindings of the driver. CUDA's libraries are loaded when a
//! device is opened; this crate does not link to them.

mod cublas_lt;
mod error;
mod kernels;
mod libraries;
mod product_key;
mod products;
mod staging;

use std::ffi::c_void;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cudarc::driver::{CudaContext, CudaStream, DriverError, result, sys};

use super::driver::{Driver, Product, Properties, Rows};
use crate::cuda::{Arg, Launch};
use crate::{Error, Result};
use error::failed;
use kernels::Kernels;
use products::{Products, WORKSPACE_BYTES};
use staging::Staging;

pub(super) use libraries::{device_count, problem};

/// Environment variable that makes every launch and product wait, so that an error names the work
/// that failed rather than the call that noticed.
const SYNCHRONOUS: &str = "KINDLING_CUDA_SYNC";

/// A GPU and its stream.
#[derive(Debug)]
pub(super) struct Native {
    properties: Properties,
    kernels: Kernels,
    staging: Mutex<Staging>,
    products: Products,
    /// Of products.
    workspace: u64,
    /// Set by `KINDLING_CUDA_SYNC=1`.
    synchronous: bool,
    stream: Arc<CudaStream>,
    context: Arc<CudaContext>,
}

impl Native {
    pub fn open(ordinal: usize) -> Result<Self> {
        let library = libraries::check()?;
        let count = device_count();
        if ordinal >= count {
            return Err(Error::DeviceUnavailable(format!(
                "cuda:{ordinal} does not exist: the driver lists {count} devices; check CUDA_VISIBLE_DEVICES or use --device cpu"
            )));
        }
        let failed = |what: String| {
            Error::DeviceUnavailable(format!("cuda:{ordinal} cannot be opened: {what}"))
        };
        // cudarc panics if the driver lacks a function.
        let opened = std::panic::catch_unwind(|| {
            CudaContext::new(ordinal).and_then(|context| Ok((context.new_stream()?, context)))
        });
        let (stream, context) = opened
            .map_err(|_| failed("the driver is older than 580 (CUDA 13.0)".to_owned()))?
            .map_err(|error| failed(format!("{:?}", error.0)))?;
        // SAFETY: only this stream uses the memory, so there are no events to track.
        unsafe { context.disable_event_tracking() };
        let unavailable = |error: DriverError| {
            Error::DeviceUnavailable(format!("cuda:{ordinal} cannot be used: {:?}", error.0))
        };
        let architecture = context.compute_capability().map_err(unavailable)?;
        let properties = Properties {
            name: context.name().map_err(unavailable)?,
            memory: context.total_mem().map_err(unavailable)? as u64,
            multiprocessors: multiprocessors(&context).map_err(unavailable)?,
            capability: architecture,
        };
        if let Some(what) = libraries::too_old((properties.name.clone(), architecture)) {
            return Err(Error::DeviceUnavailable(what));
        }
        keep_memory(&context).map_err(unavailable)?;
        let kernels = Kernels::load(&context)?;
        let allocate = || allocate(&context, &stream, WORKSPACE_BYTES);
        let workspace = allocate().map_err(|error| match error {
            Error::OutOfMemory { bytes } => {
                Error::OutOfDeviceMemory { bytes, in_use: 0, total: properties.memory }
            }
            other => other,
        })?;
        let products = Products::new(library, &stream, workspace, &properties.name)?;
        Ok(Self {
            properties,
            kernels,
            staging: Mutex::default(),
            products,
            workspace,
            synchronous: std::env::var_os(SYNCHRONOUS).is_some_and(|value| value == "1"),
            stream,
            context,
        })
    }

    fn bind(&self) -> Result<()> {
        self.context.bind_to_thread().map_err(failed)
    }

    /// Waits for the work just queued if `KINDLING_CUDA_SYNC=1`; an error then names `work`.
    fn check_now(&self, work: impl FnOnce() -> String) -> Result<()> {
        if !self.synchronous {
            return Ok(());
        }
        let done = self.stream.synchronize();
        done.map_err(|error| Error::Device(format!("{} failed: {:?}", work(), error.0)))
    }

    fn staging(&self) -> MutexGuard<'_, Staging> {
        self.staging.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn multiprocessors(context: &CudaContext) -> Result<usize, DriverError> {
    let attribute = sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT;
    context.attribute(attribute).map(|count| usize::try_from(count).unwrap_or(1).max(1))
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

/// Allocates memory in the current context.
fn allocate(context: &CudaContext, stream: &CudaStream, bytes: usize) -> Result<u64> {
    // SAFETY: the stream is live; `release` frees the memory.
    let memory = unsafe {
        if context.has_async_alloc() {
            result::malloc_async(stream.cu_stream(), bytes)
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

impl Driver for Native {
    fn properties(&self) -> &Properties {
        &self.properties
    }

    fn allocate(&self, bytes: usize) -> Result<u64> {
        self.bind()?;
        allocate(&self.context, &self.stream, bytes)
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
        })?;
        self.check_now(|| launch.kernel.to_owned())
    }

    fn multiply(&self, product: &Product) -> Result<()> {
        self.bind()?;
        self.products.multiply(product)?;
        self.check_now(|| format!("a product of {} x {} x {}", product.m, product.k, product.n))
    }

    fn algorithms(&self) -> Option<String> {
        self.products.algorithms()
    }

    fn use_algorithms(&self, stored: &str) -> bool {
        self.products.use_algorithms(stored)
    }

    fn synchronize(&self) -> Result<()> {
        self.stream.synchronize().map_err(failed)
    }
}

impl Drop for Native {
    fn drop(&mut self) {
        // Queued work may still use the staging memory and the workspace.
        let _ = self.stream.synchronize();
        self.release(self.workspace, WORKSPACE_BYTES);
    }
}
