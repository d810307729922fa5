//! The kernels of this build: modules that `build.rs` compiled, loaded into the driver, functions looked up by name.

use std::collections::HashMap;
use std::ffi::CString;
use std::sync::{Arc, PoisonError, RwLock};

use candle_core::cuda_backend::cudarc;
use cudarc::driver::{CudaContext, result, sys};

use crate::cuda::Launch;
use crate::{Error, Result};

// MODULES: each op and its compiled kernels, code for sm_80 and sm_90 and PTX that newer drivers compile.
include!(concat!(env!("OUT_DIR"), "/cuda_modules.rs"));

/// Dynamic shared memory that a kernel has without asking.
const SHARED_BYTES: u32 = 48 * 1024;

/// A kernel, and the dynamic shared memory it may use.
#[derive(Debug, Clone, Copy)]
struct Kernel {
    function: sys::CUfunction,
    shared_bytes: u32,
}

/// A module in the driver.
#[derive(Debug)]
struct Module(sys::CUmodule);

/// The modules and the functions found in them.
#[derive(Debug)]
pub(super) struct Kernels {
    found: RwLock<HashMap<&'static str, Kernel>>,
    modules: Vec<Module>,
    context: Arc<CudaContext>,
}

// SAFETY: handles of the driver may be used from any thread that has the context.
unsafe impl Send for Kernels {}
// SAFETY: as above; the table is behind a lock.
unsafe impl Sync for Kernels {}

impl Kernels {
    /// Loads all modules into the context, which is the calling thread's.
    pub fn load(context: &Arc<CudaContext>) -> Result<Self> {
        if MODULES.is_empty() {
            let message = "this build was made without CUDA's compiler and has no kernels: make it with npm run build:cuda";
            return Err(Error::DeviceUnavailable(message.to_owned()));
        }
        let mut kernels =
            Self { found: RwLock::default(), modules: Vec::new(), context: Arc::clone(context) };
        for (op, image) in MODULES {
            // The driver wants words that are aligned.
            let image: Vec<u8> = image.to_vec();
            // SAFETY: a whole image of nvcc, which knows its own length.
            let module =
                unsafe { result::module::load_data(image.as_ptr().cast()) }.map_err(|error| {
                    Error::DeviceUnavailable(format!(
                        "the driver refuses the kernels of {op}: {:?}",
                        error.0
                    ))
                })?;
            kernels.modules.push(Module(module));
        }
        Ok(kernels)
    }

    /// The function of a launch, allowed the shared memory that the launch needs.
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
            // SAFETY: a function of a module that is loaded.
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
        let found = self.modules.iter().find_map(|module| {
            let name = CString::new(name).ok()?;
            // SAFETY: a module that is loaded.
            unsafe { result::module::get_function(module.0, name) }.ok()
        });
        found.ok_or_else(|| Error::Internal(format!("there is no kernel {name}")))
    }
}

impl Drop for Kernels {
    fn drop(&mut self) {
        if self.context.bind_to_thread().is_ok() {
            for module in &self.modules {
                // A failure here has no one to tell.
                // SAFETY: loaded once, and no work of it is under way: the driver waits before it drops its kernels.
                let _ = unsafe { result::module::unload(module.0) };
            }
        }
    }
}
