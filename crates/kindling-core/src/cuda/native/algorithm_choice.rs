//! Chooses the algorithm of a matrix product: asks cuBLASLt's heuristic for proposals and times them.
//! Source: cuBLAS manual, "cublasLt API".

use std::ffi::c_int;

use cudarc::cublaslt::sys as lt;
use cudarc::driver::{DriverError, result, sys};

use super::cublas_lt::{Algorithm, SUCCESS};
use super::error::failed;
use super::product_key::Key;
use super::products::{Plan, Products, WORKSPACE_BYTES, check};
use crate::cuda::Product;
use crate::{Error, Result};

/// Maximum number of algorithms that the heuristic proposes and that are timed.
const ALGORITHMS: usize = 16;
/// Rounds of timing, of which the fastest counts.
const ROUNDS: usize = 4;
/// The heuristic's first proposal is kept unless another takes less than this share of its time.
const GAIN: f32 = 0.985;

impl Products {
    /// Returns whether the library accepts an algorithm for a plan.
    pub(super) fn can_run(&self, plan: &Plan, algorithm: &lt::cublasLtMatmulAlgo_t) -> bool {
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
    pub(super) fn fastest(
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
    pub(super) fn proposed(
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
