//! The compiled kernels of this build: modules from `build.rs`, loaded into the driver, looked up
//! by name.

use std::collections::HashMap;
use std::ffi::CString;
use std::sync::{Arc, PoisonError, RwLock};

use cudarc::driver::{CudaContext, result, sys};

use crate::cuda::Launch;
use crate::{Error, Result};

// MODULES: one fatbin per op, with code for sm_80 and sm_90a and PTX for newer GPUs.
include!(concat!(env!("OUT_DIR"), "/cuda_modules.rs"));

/// Dynamic shared memory available to a kernel without setting an attribute.
const SHARED_BYTES: u32 = 48 * 1024;

/// A kernel and the dynamic shared memory it may use.
#[derive(Debug, Clone, Copy)]
struct Kernel {
    function: sys::CUfunction,
    shared_bytes: u32,
}

/// A module loaded into the driver, with the kernels of one op.
#[derive(Debug)]
struct Module {
    op: &'static str,
    handle: sys::CUmodule,
}

/// Loaded modules, and the functions looked up in them so far.
#[derive(Debug)]
pub(super) struct Kernels {
    found: RwLock<HashMap<&'static str, Kernel>>,
    modules: Vec<Module>,
    context: Arc<CudaContext>,
}

// SAFETY: driver handles may be used from any thread on which the context is current.
unsafe impl Send for Kernels {}
// SAFETY: as above; the table is behind a lock.
unsafe impl Sync for Kernels {}

impl Kernels {
    /// Loads all modules into `context`, which is current on the calling thread.
    pub fn load(context: &Arc<CudaContext>) -> Result<Self> {
        if MODULES.is_empty() {
            let message = "this build was made without nvcc and has no CUDA kernels; build it with npm run build:cuda";
            return Err(Error::DeviceUnavailable(message.to_owned()));
        }
        let mut kernels =
            Self { found: RwLock::default(), modules: Vec::new(), context: Arc::clone(context) };
        for (op, image) in MODULES {
            // The driver requires an aligned image.
            let image: Vec<u8> = image.to_vec();
            // SAFETY: a complete fatbin, which contains its own length.
            let module =
                unsafe { result::module::load_data(image.as_ptr().cast()) }.map_err(|error| {
                    Error::DeviceUnavailable(format!(
                        "the driver rejected the kernels of {op}: {:?}; update the driver or use --device cpu",
                        error.0
                    ))
                })?;
            kernels.modules.push(Module { op, handle: module });
        }
        Ok(kernels)
    }

    /// Returns the function of a launch, with enough dynamic shared memory enabled for it.
    pub fn function(&self, launch: &Launch) -> Result<sys::CUfunction> {
        let found = self.found.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(kernel) =
            found.get(launch.kernel).filter(|k| k.shared_bytes >= launch.shared_bytes)
        {
            return Ok(kernel.function);
        }
        let known = found.get(launch.kernel).copied();
        drop(found);
        let mut kernel = match known {
            Some(kernel) => kernel,
            None => Kernel { function: self.look_up(launch.kernel)?, shared_bytes: SHARED_BYTES },
        };
        if kernel.shared_bytes < launch.shared_bytes {
            let attribute =
                sys::CUfunction_attribute_enum::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
            let bytes = launch.shared_bytes as i32;
            // SAFETY: the function belongs to a loaded module.
            unsafe { result::function::set_function_attribute(kernel.function, attribute, bytes) }
                .map_err(|error| {
                    Error::Device(format!(
                        "{} cannot have {bytes} bytes of shared memory: {:?}",
                        launch.kernel, error.0
                    ))
                })?;
            kernel.shared_bytes = launch.shared_bytes;
        }
        self.found.write().unwrap_or_else(PoisonError::into_inner).insert(launch.kernel, kernel);
        Ok(kernel.function)
    }

    fn look_up(&self, name: &str) -> Result<sys::CUfunction> {
        let unknown = || Error::Internal(format!("no kernel is named {name}"));
        let module = self.modules.iter().find(|module| module.op == op_of(name));
        let c_name = CString::new(name).map_err(|_| unknown())?;
        // SAFETY: the module is loaded.
        unsafe { result::module::get_function(module.ok_or_else(unknown)?.handle, c_name) }
            .map_err(|_| unknown())
    }
}

/// Returns the module of a kernel: the op whose name starts the kernel's, or `kernels`, the module
/// of kernels that belong to no op.
fn op_of(kernel: &str) -> &'static str {
    let ops = MODULES.iter().map(|(op, _)| *op);
    ops.filter(|op| kernel.strip_prefix(op).is_some_and(|rest| rest.starts_with('_')))
        .max_by_key(|op| op.len())
        .unwrap_or("kernels")
}

impl Drop for Kernels {
    fn drop(&mut self) {
        if self.context.bind_to_thread().is_ok() {
            for module in &self.modules {
                // Errors cannot be reported from drop.
                // SAFETY: the module was loaded once, and the driver waits for its work before
                // dropping its kernels.
                let _ = unsafe { result::module::unload(module.handle) };
            }
        }
    }
}
