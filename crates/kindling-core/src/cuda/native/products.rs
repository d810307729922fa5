//! Matrix products by cuBLASLt, which is opened by name at run time. It needs no other library, so
//! all of it comes from one installation.
//!
//! Each shape gets a plan on first use: descriptors and an algorithm. The algorithm is the fastest
//! of those that the library's heuristic proposes, timed once per process. If the device was given
//! the choices of an earlier run, it is that run's, so that a resumed run has the same bits. Sums
//! of split products stay in f32. Source: cuBLAS manual, "cublasLt API".

use std::collections::{BTreeMap, HashMap};
use std::ffi::{c_int, c_void};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cudarc::cublaslt::sys as lt;
use cudarc::driver::{CudaStream, DriverError, result, sys};

use super::cublas_lt::{Algorithm, Functions, SUCCESS, Status};
use super::error::failed;
use super::product_key::{Key, Stored};
use crate::cuda::Product;
use crate::dtype::Dtype;
use crate::{Error, Result};

/// Workspace in bytes: what NVIDIA recommends on Hopper.
pub(super) const WORKSPACE_BYTES: usize = 32 << 20;
/// Maximum number of algorithms that the heuristic proposes and that are timed.
const ALGORITHMS: usize = 16;
/// Rounds of timing, of which the fastest counts.
const ROUNDS: usize = 4;
/// The heuristic's first proposal is kept unless another takes less than this share of its time.
const GAIN: f32 = 0.985;

/// Descriptors and algorithm of a shape.
#[derive(Debug, Clone, Copy)]
struct Plan {
    description: lt::cublasLtMatmulDesc_t,
    a: lt::cublasLtMatrixLayout_t,
    b: lt::cublasLtMatrixLayout_t,
    out: lt::cublasLtMatrixLayout_t,
    algorithm: lt::cublasLtMatmulAlgo_t,
}

/// Products on one stream.
#[derive(Debug)]
pub(super) struct Products {
    functions: Functions,
    handle: lt::cublasLtHandle_t,
    plans: Mutex<Plans>,
    /// `WORKSPACE_BYTES` of device memory.
    workspace: u64,
    stream: Arc<CudaStream>,
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
    fn run(
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

    /// Returns whether the library accepts an algorithm for a plan.
    fn can_run(&self, plan: &Plan, algorithm: &lt::cublasLtMatmulAlgo_t) -> bool {
        let mut checked = Algorithm::NONE;
        // SAFETY: descriptors of this library; room for the result.
        let status = unsafe {
            (self.functions.check)(
                self.handle,
                plan.description,
                plan.b,
                plan.a,
                plan.out,
                plan.out,
                algorithm,
                &raw mut checked,
            )
        };
        status == SUCCESS && checked.state == SUCCESS && checked.workspace_bytes <= WORKSPACE_BYTES
    }

    /// Times the algorithms on the product's operands and returns the fastest. The results go to
    /// memory that is released again; if there is not enough, the first algorithm is taken.
    fn fastest(
        &self,
        p: &Product,
        plan: &Plan,
        proposed: &[lt::cublasLtMatmulAlgo_t],
    ) -> lt::cublasLtMatmulAlgo_t {
        let first = proposed[0];
        if proposed.len() == 1 {
            return first;
        }
        let bytes = ((p.m - 1) * p.out_leading + p.n) * p.results.size();
        let stream = self.stream.cu_stream();
        // SAFETY: the stream is live; the memory is freed below, after its last use is queued.
        let Ok(memory) = (unsafe { result::malloc_async(stream, bytes) }) else { return first };
        let mut times = vec![f32::INFINITY; proposed.len()];
        // The first round only warms up.
        for round in 0..=ROUNDS {
            for (time, algorithm) in times.iter_mut().zip(proposed) {
                let taken = self.time(p, plan, algorithm, memory);
                if round > 0 {
                    *time = time.min(taken.unwrap_or(f32::INFINITY));
                }
            }
        }
        // SAFETY: allocated above.
        let _ = unsafe { result::free_async(memory, stream) };
        let best = (0..times.len()).min_by(|a, b| times[*a].total_cmp(&times[*b])).unwrap_or(0);
        if times[best] < GAIN * times[0] { proposed[best] } else { first }
    }

    /// Returns the milliseconds that one product takes.
    fn time(
        &self,
        p: &Product,
        plan: &Plan,
        algorithm: &lt::cublasLtMatmulAlgo_t,
        to: u64,
    ) -> Result<f32> {
        let context = self.stream.context();
        let flags = Some(sys::CUevent_flags::CU_EVENT_DEFAULT);
        let event = || -> Result<_, DriverError> {
            let event = context.new_event(flags)?;
            event.record(&self.stream)?;
            Ok(event)
        };
        let start = event().map_err(failed)?;
        self.run(p, plan, algorithm, to)?;
        let end = event().map_err(failed)?;
        end.synchronize().and_then(|()| start.elapsed_ms(&end)).map_err(failed)
    }

    /// Returns the algorithms that the heuristic proposes, its favourite first. There is at least
    /// one.
    fn proposed(
        &self,
        key: &Key,
        plan: &Plan,
        what: &str,
    ) -> Result<Vec<lt::cublasLtMatmulAlgo_t>> {
        use lt::cublasLtMatmulPreferenceAttributes_t as Attribute;
        use lt::cublasLtReductionScheme_t as Scheme;
        let f = &self.functions;
        // A scheme that adds in the type of a bf16 result would round each partial sum.
        let schemes = Scheme::CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE as u32;
        let [align_a, align_b, align_out] = key.alignments;
        let attributes = [
            (Attribute::CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, schemes),
            (Attribute::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, align_b),
            (Attribute::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, align_a),
            (Attribute::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, align_out),
            (Attribute::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, align_out),
        ];
        let mut preference = std::ptr::null_mut();
        let mut found = [Algorithm::NONE; ALGORITHMS];
        let mut count = 0;
        // SAFETY: room for the handle and for as many results as asked for; attributes are u32,
        // the workspace's size is a size_t, as the manual says.
        unsafe {
            check(what, (f.create_preference)(&raw mut preference))?;
            for (attribute, value) in attributes {
                let at = std::ptr::from_ref(&value).cast();
                check(what, (f.prefer)(preference, attribute as c_int, at, size_of::<u32>()))?;
            }
            let bytes = std::ptr::from_ref(&WORKSPACE_BYTES).cast();
            let attribute = Attribute::CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES as c_int;
            check(what, (f.prefer)(preference, attribute, bytes, size_of::<usize>()))?;
            let status = (f.heuristic)(
                self.handle,
                plan.description,
                plan.b,
                plan.a,
                plan.out,
                plan.out,
                preference,
                ALGORITHMS as c_int,
                found.as_mut_ptr(),
                &raw mut count,
            );
            (f.destroy_preference)(preference);
            check(what, status)?;
        }
        let found = &found[..usize::try_from(count).unwrap_or(0).min(ALGORITHMS)];
        let usable = found.iter().filter(|found| found.state == SUCCESS);
        let algorithms: Vec<_> = usable.map(|found| found.words).collect();
        if algorithms.is_empty() {
            return Err(Error::Device(format!("cuBLASLt {what}")));
        }
        Ok(algorithms)
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

fn check(what: &str, status: Status) -> Result<()> {
    if status == SUCCESS {
        Ok(())
    } else {
        Err(Error::Device(format!("cuBLASLt {what} ({status})")))
    }
}
