//! The kernels of RMSNorm (of rows and of heads), RoPE, SwiGLU and SiLU against references and
//! finite differences.

mod common;

use common::{
    Activation, TOLERANCE, assert_close, assert_slopes, in_every_order, launch, memory, random,
    slopes, view, view_mut, wide,
};
use kindling_core::ops::{head_norm, rms_norm, rope, silu, swiglu};
use kindling_kernel_emulator::{Bf16, Memory};

fn silu_holds<T: Activation>() {
    for (n, offset) in [(1, 0), (7, 0), (8, 1), (31, 0), (1000, 0), (1000, 3), (5000, 0)] {
        let (x, dout) = (random::<T>(1, n, 6.0), random::<T>(2, n, 1.0));
        let results = in_every_order(|order| {
            let (x, dout) = (memory(&x, offset), memory(&dout, 0));
            let (out, dx) = (Memory::<T>::poisoned(n, 0), Memory::<T>::poisoned(n, offset));
            let forward = silu::Forward { out: view_mut(&out), x: view(&x) };
            launch(&silu::cuda::forward(&forward), order);
            let backward = silu::Backward { dx: view_mut(&dx), dout: view(&dout), x: view(&x) };
            launch(&silu::cuda::backward(&backward), order);
            vec![out.to_f32(), dx.to_f32()]
        });
        assert_close("out", &results[0], &silu::reference::forward(&wide(&x)), T::TOLERANCE);
        let slopes = slopes(&wide(&x), &wide(&dout), silu::reference::forward);
        assert_slopes("dx", &results[1], &slopes, T::TOLERANCE);
    }
}

#[test]
#[cfg_attr(no_cpp_compiler, ignore = "no C++ compiler")]
fn silu_matches_the_reference_and_finite_differences() {
    silu_holds::<f32>();
    silu_holds::<Bf16>();
}

fn swiglu_holds<T: Activation>() {
    for (rows, width, offset) in
        [(1, 1, 0), (3, 7, 0), (5, 8, 0), (2, 24, 2), (7, 31, 1), (2, 2056, 0)]
    {
        let s = swiglu::Shape { rows, width };
        let (x, dout) = (random::<T>(1, 2 * rows * width, 5.0), random::<T>(2, rows * width, 1.0));
        let results = in_every_order(|order| {
            let (x, dout) = (memory(&x, offset), memory(&dout, 0));
            let (out, dx) = (
                Memory::<T>::poisoned(rows * width, 0),
                Memory::<T>::poisoned(2 * rows * width, offset),
            );
            let forward = swiglu::Forward { out: view_mut(&out), gate_up: view(&x), shape: s };
            launch(&swiglu::cuda::forward(&forward), order);
            let apart = swiglu::Backward {
                dgate_up: view_mut(&dx),
                dout: view(&dout),
                gate_up: view(&x),
                shape: s,
            };
            launch(&swiglu::cuda::backward(&apart), order);
            let in_place = |gate_up, dout, recompute| {
                let (gate_up, out) = (view_mut(gate_up), view_mut(dout));
                let args = swiglu::BackwardInPlace { gate_up, out, recompute, shape: s };
                launch(&swiglu::cuda::backward_in_place(&args), order);
            };
            let (same_x, kept) = (memory(x.values(), offset), memory(dout.values(), 0));
            in_place(&same_x, &kept, false);
            assert_eq!((same_x.to_f32(), kept.to_f32()), (dx.to_f32(), dout.to_f32()));
            in_place(&x, &dout, true);
            assert_eq!(
                (x.to_f32(), dout.to_f32()),
                (dx.to_f32(), out.to_f32()),
                "in place and apart"
            );
            vec![out.to_f32(), dx.to_f32()]
        });
        assert_close("out", &results[0], &swiglu::reference::forward(&wide(&x), s), T::TOLERANCE);
        let slopes = slopes(&wide(&x), &wide(&dout), |x| swiglu::reference::forward(x, s));
        assert_slopes("dgate_up", &results[1], &slopes, T::TOLERANCE);
    }
}

#[test]
#[cfg_attr(no_cpp_compiler, ignore = "no C++ compiler")]
fn swiglu_matches_the_reference_and_finite_differences() {
    swiglu_holds::<f32>();
    swiglu_holds::<Bf16>();
}

fn rope_holds<T: Activation>() {
    for (rows, heads, rest, head_size, positions, first_position, offset) in [
        (1, 1, 0, 2, 1, 0, 0),
        (6, 3, 4, 6, 3, 2, 0),
        (10, 2, 8, 8, 5, 0, 0),
        (4, 2, 8, 8, 4, 7, 2),
        (3, 5, 64, 64, 3, 0, 0),
        (2, 9, 3, 34, 2, 1, 1),
    ] {
        let row_width = heads * head_size + rest;
        let s = rope::Shape { rows, row_width, heads, head_size, positions, first_position };
        let x = random::<T>(1, rows * row_width, 2.0);
        let (cos, sin) = rope::tables(first_position + positions, head_size, 1e4);
        let results = in_every_order(|order| {
            let (forward, both) = (memory(&x, offset), memory(&x, 0));
            let (cos, sin) = (memory(&cos, 0), memory(&sin, offset));
            let rotate = |x: &Memory<T>, direction| {
                let (cos, sin) = (view(&cos), view(&sin));
                rope::cuda::rotate(&rope::Forward { x: view_mut(x), cos, sin, shape: s }, direction)
            };
            launch(&rotate(&forward, 1.0), order);
            launch(&rotate(&both, 1.0), order);
            launch(&rotate(&both, -1.0), order);
            vec![forward.to_f32(), both.to_f32()]
        });
        assert_close(
            "out",
            &results[0],
            &rope::reference::forward(&wide(&x), 1e4, s),
            T::TOLERANCE,
        );
        assert_close("there and back", &results[1], &wide(&x), T::TOLERANCE);
    }
}

#[test]
#[cfg_attr(no_cpp_compiler, ignore = "no C++ compiler")]
fn rope_matches_the_reference_and_its_gradient_rotates_back() {
    rope_holds::<f32>();
    rope_holds::<Bf16>();
}

/// (rows, width, offset): for each kernel, rows that fill its block and rows that do not.
const NORM_SIZES: [(usize, usize, usize); 13] = [
    (1, 1, 0),
    (7, 31, 0),
    (9, 32, 0),
    (33, 36, 1),
    (3, 260, 0),
    (2, 1000, 0),
    (2, 1100, 0),
    (2, 257, 0),
    (600, 4, 0),
    (67, 68, 0),
    (19, 2052, 0),
    (17, 4100, 0),
    (2, 1026, 1),
];

fn rms_norm_holds<T: Activation>() {
    use rms_norm::{cuda, reference};
    for (rows, width, offset) in NORM_SIZES {
        // With a single column the slope depends on eps alone; make it large enough to show.
        let s = rms_norm::Shape { rows, width, eps: if width == 1 { 0.5 } else { 1e-5 } };
        let n = rows * width;
        let (x, dout) = (random::<f32>(1, n, 2.0), random::<T>(2, n, 1.0));
        let (residual, dstream) = (random::<T>(3, n, 1.0), random::<f32>(4, n, 1.0));
        let (weight, dweight) = (random::<f32>(5, width, 1.5), random::<f32>(6, width, 1.0));
        for with_residual in [false, true] {
            let results = in_every_order(|order| {
                let (x, residual) = (memory(&x, offset), memory(&residual, offset));
                let (dout, weight, dweight) =
                    (memory(&dout, 0), memory(&weight, 0), memory(&dweight, 0));
                let (out, sum) = (Memory::<T>::poisoned(n, 0), Memory::<f32>::poisoned(n, 0));
                let rstd = Memory::<f32>::poisoned(rows, 0);
                let forward = if with_residual {
                    cuda::forward_residual(&rms_norm::ForwardResidual {
                        out: view_mut(&out),
                        sum: view_mut(&sum),
                        rstd: view_mut(&rstd),
                        x: view(&x),
                        residual: view(&residual),
                        weight: view(&weight),
                        shape: s,
                    })
                } else {
                    cuda::forward(&rms_norm::Forward {
                        out: view_mut(&out),
                        rstd: view_mut(&rstd),
                        x: view(&x),
                        weight: view(&weight),
                        shape: s,
                    })
                };
                launch(&forward, order);
                let normed = if with_residual { &sum } else { &x };
                let partial = Memory::<f32>::poisoned(cuda::partial_len(s), 0);
                let (again, rounded) = (Memory::<T>::poisoned(n, 0), Memory::<T>::poisoned(n, 0));
                let dx = if with_residual {
                    memory(&dstream, offset)
                } else {
                    Memory::poisoned(n, offset)
                };
                let backward = rms_norm::Backward {
                    dx: view_mut(&dx),
                    rounded: with_residual.then(|| view_mut(&rounded)),
                    normed: with_residual.then(|| view_mut(&again)),
                    dweight: view_mut(&dweight),
                    dout: view(&dout),
                    x: view(normed),
                    weight: view(&weight),
                    rstd: view(&rstd),
                    shape: s,
                };
                for one in &cuda::backward(&backward, partial.address(), with_residual) {
                    launch(one, order);
                }
                if with_residual {
                    assert_eq!(again.to_f32(), out.to_f32(), "the norm has the same bits");
                    let expected = dx.to_f32().into_iter().map(|v| T::from_f32(v).to_f32());
                    assert_eq!(rounded.to_f32(), expected.collect::<Vec<_>>());
                }
                vec![out.to_f32(), normed.to_f32(), dx.to_f32(), dweight.to_f32()]
            });
            let mut sum = wide(&x);
            if with_residual {
                sum.iter_mut().zip(wide(&residual)).for_each(|(s, r)| *s += r);
            }
            assert_close("sum", &results[1], &sum, TOLERANCE);
            assert_close(
                "out",
                &results[0],
                &reference::forward(&sum, &wide(&weight), s),
                T::TOLERANCE,
            );
            let along = wide(&dout);
            let dx: Vec<f32> = if with_residual {
                results[2].iter().zip(&dstream).map(|(a, b)| a - b).collect()
            } else {
                results[2].clone()
            };
            let slopes_x = slopes(&sum, &along, |x| reference::forward(x, &wide(&weight), s));
            assert_slopes("dx", &dx, &slopes_x, TOLERANCE);
            let added: Vec<f32> = results[3].iter().zip(&dweight).map(|(a, b)| a - b).collect();
            let slopes_w = slopes(&wide(&weight), &along, |w| reference::forward(&sum, w, s));
            assert_slopes("dweight", &added, &slopes_w, TOLERANCE);
        }
    }
}

#[test]
#[cfg_attr(no_cpp_compiler, ignore = "no C++ compiler")]
fn rms_norm_matches_the_reference_and_finite_differences_with_and_without_residual() {
    rms_norm_holds::<f32>();
    rms_norm_holds::<Bf16>();
}

fn head_norm_holds<T: Activation>() {
    use head_norm::{cuda, reference};
    for (rows, q_heads, k_heads, rest, head_size, offset) in [
        (1, 1, 1, 0, 2, 0),
        (3, 2, 1, 7, 10, 1),
        (5, 4, 2, 64, 32, 0),
        (2, 3, 3, 33, 33, 0),
        (40, 2, 1, 128, 128, 0),
        (77, 2, 2, 6, 6, 0),
    ] {
        let row_width = (q_heads + k_heads) * head_size + rest;
        let s = head_norm::Shape { rows, row_width, q_heads, k_heads, head_size, eps: 1e-3 };
        let (n, normed) = (rows * row_width, rows * s.normed_width());
        let (x, dout) = (random::<T>(1, n, 2.0), random::<T>(2, n, 1.0));
        let (weight, dweight) =
            (random::<f32>(3, 2 * head_size, 1.5), random::<f32>(4, 2 * head_size, 1.0));
        let results = in_every_order(|order| {
            let (out, dx, weight) = (memory(&x, offset), memory(&dout, offset), memory(&weight, 0));
            let (saved, dweight) = (Memory::<T>::poisoned(normed, 0), memory(&dweight, 0));
            let forward = head_norm::Forward {
                x: view_mut(&out),
                saved: Some(view_mut(&saved)),
                weight: view(&weight),
                shape: s,
            };
            launch(&cuda::forward(&forward), order);
            let partial = Memory::<f32>::poisoned(cuda::partial_len(s), 0);
            let backward = head_norm::Backward {
                dx: view_mut(&dx),
                dweight: view_mut(&dweight),
                saved: view(&saved),
                weight: view(&weight),
                shape: s,
            };
            for one in &cuda::backward(&backward, partial.address()) {
                launch(one, order);
            }
            let alone = memory(&x, offset);
            let (x, weight) = (view_mut(&alone), view(&weight));
            launch(&cuda::forward(&head_norm::Forward { x, saved: None, weight, shape: s }), order);
            assert_eq!(alone.to_f32(), out.to_f32(), "without saving");
            vec![out.to_f32(), dx.to_f32(), dweight.to_f32()]
        });
        let expected = reference::forward(&wide(&x), &wide(&weight), s);
        assert_close("out", &results[0], &expected, T::TOLERANCE);
        let slopes_x =
            slopes(&wide(&x), &wide(&dout), |x| reference::forward(x, &wide(&weight), s));
        assert_slopes("dx", &results[1], &slopes_x, T::TOLERANCE);
        let added: Vec<f32> = results[2].iter().zip(&dweight).map(|(a, b)| a - b).collect();
        let slopes_w =
            slopes(&wide(&weight), &wide(&dout), |w| reference::forward(&wide(&x), w, s));
        assert_slopes("dweight", &added, &slopes_w, TOLERANCE);
    }
}

#[test]
#[cfg_attr(no_cpp_compiler, ignore = "no C++ compiler")]
fn head_norm_matches_the_reference_and_finite_differences() {
    head_norm_holds::<f32>();
    head_norm_holds::<Bf16>();
}
