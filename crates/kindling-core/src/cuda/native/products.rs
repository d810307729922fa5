//! Matrix products by cuBLASLt, which is opened by name at run time. It needs no other library, so
//! all of it comes from one installation.
//!
//! Each shape gets a plan on first use: descriptors and an algorithm. The algorithm is the fastest
//! of those that the library's heuristic proposes, timed once per process (`algorithm_choice.rs`).
//! If the device was given the choices of an earlier run, it is that run's, so that a resumed run
//! has the same bits. Sums of split products stay in f32. Source: cuBLAS manual, "cublasLt API".

use std::collections::{BTreeMap, HashMap};
use std::ffi::{c_int, c_void};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cudarc::cublaslt::sys as lt;
use cudarc::driver::CudaStream;

use super::cublas_lt::{Algorithm, Functions, SUCCESS, Status};
use super::product_key::{Key, Stored};
use crate::cuda::Product;
use crate::dtype::Dtype;
use crate::{Error, Result};

/// Workspace in bytes: what NVIDIA recommends on Hopper.
pub(super) const WORKSPACE_BYTES: usize = 32 << 20;

/// Descriptors and algorithm of a shape.
#[derive(Debug, Clone, Copy)]
pub(super) struct Plan {
    pub(super) description: lt::cublasLtMatmulDesc_t,
    pub(super) a: lt::cublasLtMatrixLayout_t,
    pub(super) b: lt::cublasLtMatrixLayout_t,
    pub(super) out: lt::cublasLtMatrixLayout_t,
    algorithm: lt::cublasLtMatmulAlgo_t,
}

/// Products on one stream.
#[derive(Debug)]
pub(super) struct Products {
    pub(super) functions: Functions,
    pub(super) handle: lt::cublasLtHandle_t,
    plans: Mutex<Plans>,
    /// `WORKSPACE_BYTES` of device memory.
    workspace: u64,
    pub(super) stream: Arc<CudaStream>,
    device: String,
}

/// The algorithms that this process chose by timing, by device and shape. All of its models use the
/// same ones, so that two models have the same bits.
static TIMED: Mutex<BTreeMap<(String, String), lt::cublasLtMatmulAlgo_t>> =
    Mutex::new(BTreeMap::new());

/// Plans made so far, and the algorithms that an earlier run chose.
#[derive(Debug, Default)]
struct Plans {
    made: HashMap<Key, Plan>,
    given: BTreeMap<String, lt::cublasLtMatmulAlgo_t>,
}

// SAFETY: the handle may be used from any thread; descriptors are written only while they are made,
// under the lock.
unsafe impl Send for Products {}
// SAFETY: as above.
unsafe impl Sync for Products {}

impl Products {
    /// Prepares products on `stream` with the library that `libraries::check` has opened. The
    /// workspace is device memory that only this stream uses.
    pub fn new(
        library: *mut c_void,
        stream: &Arc<CudaStream>,
        workspace: u64,
        device: &str,
    ) -> Result<Self> {
        let functions = Functions::of(library).ok_or_else(|| {
            Error::DeviceUnavailable("cuBLASLt lacks functions; install CUDA toolkit 13".to_owned())
        })?;
        let mut handle = std::ptr::null_mut();
        // SAFETY: room for the handle.
        check("cannot be set up", unsafe { (functions.create)(&raw mut handle) })?;
        Ok(Self {
            functions,
            handle,
            plans: Mutex::default(),
            workspace,
            stream: Arc::clone(stream),
            device: device.to_owned(),
        })
    }

    /// Queues a product. The first one of a shape waits for the device, to time its algorithms.
    pub fn multiply(&self, p: &Product) -> Result<()> {
        let key = Key::of(p);
        let mut plans = self.plans();
        let plan = if let Some(plan) = plans.made.get(&key) {
            *plan
        } else {
            let given = plans.given.get(&key.to_string()).copied();
            let plan = self.plan(p, &key, given)?;
            *plans.made.entry(key).or_insert(plan)
        };
        drop(plans);
        self.run(p, &plan, &plan.algorithm, p.out)
    }

    /// Queues a product with an algorithm. `to` is `p.out`, or memory of its size that receives the
    /// result instead.
    pub(super) fn run(
        &self,
        p: &Product,
        plan: &Plan,
        algorithm: &lt::cublasLtMatmulAlgo_t,
        to: u64,
    ) -> Result<()> {
        let (alpha, beta) = (1.0f32, if p.accumulate { 1.0f32 } else { 0.0 });
        // cuBLAS is column-major: our rows of n are its columns, and out^T = b^T a^T.
        // SAFETY: the caller owns matrices of these sizes at these addresses; alpha and beta are
        // read before the call returns.
        let status = unsafe {
            (self.functions.multiply)(
                self.handle,
                plan.description,
                std::ptr::from_ref(&alpha).cast(),
                p.b.pointer as *const c_void,
                plan.b,
                p.a.pointer as *const c_void,
                plan.a,
                std::ptr::from_ref(&beta).cast(),
                p.out as *const c_void,
                plan.out,
                to as *mut c_void,
                plan.out,
                algorithm,
                self.workspace as *mut c_void,
                WORKSPACE_BYTES,
                self.stream.cu_stream().cast(),
            )
        };
        check(&format!("failed at a product of {} x {} x {}", p.m, p.k, p.n), status)
    }

    /// Returns the algorithms chosen so far, for `use_algorithms` of a later run.
    pub fn algorithms(&self) -> Option<String> {
        let plans = self.plans();
        let chosen = plans.made.iter().map(|(key, plan)| (key.to_string(), plan.algorithm));
        let mut all = plans.given.clone();
        all.extend(chosen);
        Stored::text(&self.device, self.version(), all)
    }

    /// Uses the algorithms of an earlier run for shapes that have none yet. Returns whether they
    /// apply to this device and library.
    pub fn use_algorithms(&self, stored: &str) -> bool {
        match Stored::algorithms_for(&self.device, self.version(), stored) {
            Some(given) => {
                self.plans().given = given;
                true
            }
            None => false,
        }
    }

    /// Returns the library's version.
    fn version(&self) -> usize {
        // SAFETY: takes and changes nothing.
        unsafe { (self.functions.version)() }
    }

    fn plans(&self) -> MutexGuard<'_, Plans> {
        self.plans.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the descriptors of a shape and chooses its algorithm: the one given if it can run, or
    /// else the fastest.
    fn plan(
        &self,
        p: &Product,
        key: &Key,
        given: Option<lt::cublasLtMatmulAlgo_t>,
    ) -> Result<Plan> {
        let f = &self.functions;
        let [m, k, n] = key.sizes;
        let what = format!("has no algorithm for a product of {m} x {k} x {n}");
        let kind = |dtype| match dtype {
            Dtype::F32 => lt::cudaDataType_t::CUDA_R_32F,
            Dtype::Bf16 => lt::cudaDataType_t::CUDA_R_16BF,
        } as c_int;
        let compute = if key.tf32 {
            lt::cublasComputeType_t::CUBLAS_COMPUTE_32F_FAST_TF32
        } else {
            lt::cublasComputeType_t::CUBLAS_COMPUTE_32F
        };
        // Stored (rows, columns), which cuBLAS reads as (columns, rows).
        let stored = |transposed, rows, columns| {
            if transposed { (columns, rows) } else { (rows, columns) }
        };
        let layout = |dtype, (rows, columns): (usize, usize), leading: usize| {
            let mut made = std::ptr::null_mut();
            // SAFETY: room for the handle.
            let status = unsafe {
                (f.create_layout)(
                    &raw mut made,
                    kind(dtype),
                    columns as u64,
                    rows as u64,
                    leading as i64,
                )
            };
            check(&what, status).map(|()| made)
        };
        let mut description = std::ptr::null_mut();
        // SAFETY: room for the handle; each attribute is an i32 as the manual says.
        unsafe {
            let scale = lt::cudaDataType_t::CUDA_R_32F as c_int;
            check(&what, (f.create_description)(&raw mut description, compute as c_int, scale))?;
            let attributes = [
                (
                    lt::cublasLtMatmulDescAttributes_t::CUBLASLT_MATMUL_DESC_TRANSA,
                    key.transposed[1],
                ),
                (
                    lt::cublasLtMatmulDescAttributes_t::CUBLASLT_MATMUL_DESC_TRANSB,
                    key.transposed[0],
                ),
            ];
            for (attribute, transposed) in attributes {
                let value = i32::from(transposed);
                let at = std::ptr::from_ref(&value).cast();
                check(&what, (f.describe)(description, attribute as c_int, at, size_of::<i32>()))?;
            }
        }
        let a = layout(key.operands, stored(key.transposed[0], m, k), key.leading[0])?;
        let b = layout(key.operands, stored(key.transposed[1], k, n), key.leading[1])?;
        let out = layout(key.results, (m, n), key.leading[2])?;
        let mut plan = Plan { description, a, b, out, algorithm: Algorithm::NONE.words };
        let can_run = |algorithm: &lt::cublasLtMatmulAlgo_t| self.can_run(&plan, algorithm);
        if let Some(given) = given.filter(can_run) {
            plan.algorithm = given;
            return Ok(plan);
        }
        let name = (self.device.clone(), key.to_string());
        let mut timed = TIMED.lock().unwrap_or_else(PoisonError::into_inner);
        plan.algorithm = match timed.get(&name) {
            Some(algorithm) => *algorithm,
            None => self.fastest(p, &plan, &self.proposed(key, &plan, &what)?),
        };
        timed.insert(name, plan.algorithm);
        Ok(plan)
    }
}

impl Drop for Products {
    fn drop(&mut self) {
        let f = self.functions;
        let plans = self.plans.get_mut().unwrap_or_else(PoisonError::into_inner);
        // SAFETY: made by `plan` and `new`, and no longer used; the device is idle.
        unsafe {
            for (_, plan) in plans.made.drain() {
                for layout in [plan.a, plan.b, plan.out] {
                    (f.destroy_layout)(layout);
                }
                (f.destroy_description)(plan.description);
            }
            (f.destroy)(self.handle);
        }
    }
}

pub(super) fn check(what: &str, status: Status) -> Result<()> {
    if status == SUCCESS {
        Ok(())
    } else {
        Err(Error::Device(format!("cuBLASLt {what} ({status})")))
    }
}
