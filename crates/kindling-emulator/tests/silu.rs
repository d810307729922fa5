//! SiLU's kernels against the reference and finite differences.

mod common;

use common::{Activation, assert_close, assert_slopes, in_every_order, launch, memory, random, slopes, wide};
use kindling_core::ops::silu::{cuda, reference};
use kindling_emulator::{Bf16, Memory};

fn holds<T: Activation>() {
    for (n, offset) in [(1, 0), (7, 0), (8, 1), (31, 0), (1000, 0), (1000, 3), (5000, 0)] {
        let (x, dout) = (random::<T>(1, n, 6.0), random::<T>(2, n, 1.0));
        let results = in_every_order(|order| {
            let (x, dout) = (memory(&x, offset), memory(&dout, 0));
            let (out, dx) = (Memory::<T>::poisoned(n, 0), Memory::<T>::poisoned(n, offset));
            launch(&cuda::forward(T::DTYPE, out.address(), x.address(), n), order);
            launch(&cuda::backward(T::DTYPE, dx.address(), dout.address(), x.address(), n), order);
            vec![out.to_f32(), dx.to_f32()]
        });
        assert_close("out", &results[0], &reference::forward(&wide(&x)), T::TOLERANCE);
        let slopes = slopes(&wide(&x), &wide(&dout), reference::forward);
        assert_slopes("dx", &results[1], &slopes, T::TOLERANCE);
    }
}

#[test]
#[cfg_attr(no_cpp_compiler, ignore = "no C++ compiler")]
fn silu_matches_the_reference_and_finite_differences() {
    holds::<f32>();
    holds::<Bf16>();
}
