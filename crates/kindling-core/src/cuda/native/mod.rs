//! The `Driver` of a real GPU, on top of cudarc's bindings of the CUDA driver. CUDA's libraries are
//! loaded when a device is opened; this crate does not link to them.

mod algorithm_choice;
mod cublas_lt;
mod error;
mod graph;
mod kernels;
mod libraries;
mod product_key;
mod products;
mod queue;
mod staging;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cudarc::driver::{CudaContext, CudaStream, DriverError, result, sys};

use super::driver::{Driver, Product, Properties, Rows};
use crate::cuda::Launch;
use crate::{Error, Result};
use error::failed;
use graph::{Graph, Mirror, Plan, Recorder, Work};
use kernels::Kernels;
use products::{Products, WORKSPACE_BYTES};
use staging::Staging;

pub(super) use libraries::{device_count, problem};

/// Environment variable that makes every launch and product wait, so that an error names the work
/// that failed rather than the call that noticed.
const SYNCHRONOUS: &str = "KINDLING_CUDA_SYNC";

/// Environment variable that turns CUDA graphs off if it is 0.
const GRAPHS: &str = "KINDLING_CUDA_GRAPHS";

/// A GPU and its stream.
#[derive(Debug)]
pub(super) struct Native {
    properties: Properties,
    kernels: Kernels,
    staging: Mutex<Staging>,
    /// `None` if CUDA graphs are off.
    recorder: Option<Mutex<Recorder>>,
    products: Products,
    /// Device memory that products use as workspace, `WORKSPACE_BYTES` of it.
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
            Error::DeviceUnavailable(format!(
                "cuda:{ordinal} cannot be opened: {what}; use --device cpu"
            ))
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
            Error::DeviceUnavailable(format!(
                "cuda:{ordinal} cannot be used: {:?}; use --device cpu",
                error.0
            ))
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
        let synchronous = std::env::var_os(SYNCHRONOUS).is_some_and(|value| value == "1");
        Ok(Self {
            properties,
            kernels,
            staging: Mutex::default(),
            recorder: has_graphs(synchronous).then(Mutex::default),
            products,
            workspace,
            synchronous,
            stream,
            context,
        })
    }

    fn bind(&self) -> Result<()> {
        self.context.bind_to_thread().map_err(failed)
    }

    fn staging(&self) -> MutexGuard<'_, Staging> {
        self.staging.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn recorder(&self) -> Option<MutexGuard<'_, Recorder>> {
        Some(self.recorder.as_ref()?.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Holds work back if it is being recorded. Returns whether it was.
    fn holds(&self, work: impl FnOnce() -> Work) -> bool {
        self.recorder().is_some_and(|mut recorder| recorder.hold(work))
    }

    /// Queues what was held back, and stops recording.
    fn flush(&self) -> Result<()> {
        let held = self.recorder().map(|mut recorder| recorder.flush());
        self.queue(&held.unwrap_or_default())
    }

    /// Uploads to a mirror, memory of its own, and records a copy from there to `pointer`.
    fn upload_mirrored(&self, recorder: &mut Recorder, pointer: u64, from: &[u8]) -> Result<()> {
        let index = recorder.next_mirror();
        let known = recorder.mirrors.get(index).copied();
        let mirror = match known {
            Some(mirror) if mirror.bytes >= from.len() => mirror,
            _ => {
                let bytes = from.len().next_power_of_two();
                let mirror = Mirror { pointer: self.allocate(bytes)?, bytes };
                match recorder.mirrors.get_mut(index) {
                    // In stream order, the last copy from the old memory comes before its release.
                    Some(old) => self.free(std::mem::replace(old, mirror).pointer),
                    None => recorder.mirrors.push(mirror),
                }
                mirror
            }
        };
        self.staging().upload(&self.stream, mirror.pointer, from)?;
        let row = |pointer| Rows { pointer, pitch: from.len() };
        let (to, from, bytes) = (row(pointer), row(mirror.pointer), from.len());
        recorder.hold(|| Work::CopyRows { to, from, bytes, count: 1 });
        Ok(())
    }

    fn free(&self, pointer: u64) {
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
}

/// Returns whether to use CUDA graphs: not if each launch waits, or if the environment turns them
/// off.
fn has_graphs(synchronous: bool) -> bool {
    !synchronous && std::env::var_os(GRAPHS).is_none_or(|value| value != "0")
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
        // Work held back may use the memory. An error in it surfaces in the next call.
        if self.bind().is_ok() {
            let _ = self.flush();
            self.free(pointer);
        }
    }

    fn clear(&self, pointer: u64, bytes: usize) -> Result<()> {
        if self.holds(|| Work::Clear { pointer, bytes }) {
            return Ok(());
        }
        self.queue_clear(pointer, bytes)
    }

    fn upload(&self, pointer: u64, from: &[u8]) -> Result<()> {
        self.bind()?;
        if let Some(mut recorder) = self.recorder().filter(|recorder| recorder.is_recording()) {
            return self.upload_mirrored(&mut recorder, pointer, from);
        }
        self.staging().upload(&self.stream, pointer, from)
    }

    fn download(&self, to: &mut [u8], pointer: u64) -> Result<()> {
        self.bind()?;
        self.flush()?;
        // SAFETY: the caller owns that many bytes at `pointer`, and `to` is not read before the
        // wait below.
        unsafe { result::memcpy_dtoh_async(to, pointer, self.stream.cu_stream()) }
            .and_then(|()| self.stream.synchronize())
            .map_err(failed)
    }

    fn copy_rows(&self, to: Rows, from: Rows, bytes: usize, count: usize) -> Result<()> {
        if self.holds(|| Work::CopyRows { to, from, bytes, count }) {
            return Ok(());
        }
        self.queue_copy(to, from, bytes, count)
    }

    fn launch(&self, launch: &Launch) -> Result<()> {
        if self.holds(|| Work::Launch(launch.clone())) {
            return Ok(());
        }
        self.queue_launch(launch)
    }

    fn multiply(&self, product: &Product) -> Result<()> {
        if self.holds(|| Work::Product(*product)) {
            return Ok(());
        }
        self.queue_product(product)
    }

    fn start_recording(&self) {
        if let Some(mut recorder) = self.recorder() {
            recorder.start();
        }
    }

    fn finish_recording(&self) -> Result<()> {
        let Some(mut recorder) = self.recorder() else { return Ok(()) };
        if !recorder.is_recording() {
            return Ok(());
        }
        self.bind()?;
        let stream = self.stream.cu_stream();
        let (work, captures) = match recorder.finish() {
            Plan::Launch(graph) => return graph.launch(stream).map_err(failed),
            Plan::Queue(work) => (work, false),
            Plan::Capture(work) => (work, true),
        };
        if captures {
            let graph = Graph::capture(stream, &self.context, || self.queue(&work));
            if let Some(graph) = recorder.captured(graph) {
                return graph.launch(stream).map_err(failed);
            }
        }
        self.queue(&work)
    }

    fn algorithms(&self) -> Option<String> {
        self.products.algorithms()
    }

    fn use_algorithms(&self, stored: &str) -> bool {
        self.products.use_algorithms(stored)
    }

    fn synchronize(&self) -> Result<()> {
        self.bind()?;
        self.flush()?;
        self.stream.synchronize().map_err(failed)
    }
}

impl Drop for Native {
    fn drop(&mut self) {
        // Queued work may still use the staging memory and the workspace.
        let _ = self.stream.synchronize();
        let recorder = self.recorder().map(|mut recorder| std::mem::take(&mut *recorder));
        for mirror in recorder.unwrap_or_default().mirrors {
            self.release(mirror.pointer, mirror.bytes);
        }
        self.release(self.workspace, WORKSPACE_BYTES);
    }
}
