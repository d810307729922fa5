//! RMSNorm, RoPE, SwiGLU and SiLU, forward and backward, against f64 loops, finite differences and
//! candle's autograd, at odd sizes and on every instruction set.

mod common;

use candle_core::{D, Tensor};
use common::*;
use kindling_core::ops::{rms_norm, rope, silu, swiglu};

const THETA: f64 = 10_000.0;

/// Rows, width, eps. At width 1 the terms of the gradient cancel except for eps; a large eps leaves
/// enough digits.
const NORM_SIZES: [(usize, usize, f32); 7] = [
    (1, 1, 0.1),
    (1, 3, 1e-5),
    (7, 31, 1e-5),
    (33, 33, 1e-5),
    (100, 7, 1e-5),
    (65, 1000, 1e-5),
    (1000, 100, 1e-5),
];

fn candle_rms_norm(x: &Tensor, weight: &Tensor, eps: f32) -> Tensor {
    let mean = x.sqr().unwrap().mean_keepdim(D::Minus1).unwrap();
    let rstd = (mean + f64::from(eps)).unwrap().sqrt().unwrap().recip().unwrap();
    x.broadcast_mul(&rstd).unwrap().broadcast_mul(weight).unwrap()
}

#[test]
fn rms_norm_matches_the_reference_and_candle_with_and_without_residual() {
    for (rows, width, eps) in NORM_SIZES {
        let s = rms_norm::Shape { rows, width, eps };
        let (x, residual) = (random(1, rows * width), random(2, rows * width));
        let w = random_around(3, width, 1.0, 0.5);
        let (tx, tw) = (tensor(&x, &[rows, width]), tensor(&w, &[width]));
        let total: Vec<f64> =
            x.iter().zip(&residual).map(|(a, b)| f64::from(*a) + f64::from(*b)).collect();
        for dev in devices() {
            let (mut y, mut rstd) = (vec![9.0; rows * width], vec![9.0; rows]);
            rms_norm::forward(
                &dev,
                rms_norm::Forward {
                    out: view_mut(&mut y),
                    rstd: view_mut(&mut rstd),
                    x: view(&x),
                    weight: view(&w),
                    shape: s,
                },
            )
            .unwrap();
            assert_close("out", &y, &rms_norm::reference::forward(&wide(&x), &wide(&w), s));
            assert_close("out", &y, &values(&candle_rms_norm(&tx, &tw, s.eps)));
            let mut sum = vec![9.0; rows * width];
            rms_norm::forward_residual(
                &dev,
                rms_norm::ForwardResidual {
                    out: view_mut(&mut y),
                    sum: view_mut(&mut sum),
                    rstd: view_mut(&mut rstd),
                    x: view(&x),
                    residual: view(&residual),
                    weight: view(&w),
                    shape: s,
                },
            )
            .unwrap();
            assert_close("sum", &sum, &total);
            assert_close("norm of sum", &y, &rms_norm::reference::forward(&total, &wide(&w), s));
        }
    }
}

#[test]
fn rms_norm_backward_matches_finite_differences_and_candle() {
    for (rows, width, eps) in NORM_SIZES {
        let s = rms_norm::Shape { rows, width, eps };
        let (x, w) = (random(1, rows * width), random_around(3, width, 1.0, 0.5));
        let (dout, dresidual) = (random(4, rows * width), random(5, rows * width));
        let (vx, vw) = (variable(&x, &[rows, width]), variable(&w, &[width]));
        let oracle = candle_gradients(&candle_rms_norm(&vx, &vw, s.eps), &dout, &[&vx, &vw]);
        let with_residual: Vec<f64> =
            oracle[0].iter().zip(&dresidual).map(|(a, b)| a + f64::from(*b)).collect();
        let (wx, ww) = (wide(&x), wide(&w));
        let x_slopes = slopes(&x, &dout, |x| rms_norm::reference::forward(x, &ww, s));
        let w_slopes = slopes(&w, &dout, |w| rms_norm::reference::forward(&wx, w, s));
        for dev in devices() {
            let (mut y, mut rstd) = (vec![9.0; rows * width], vec![9.0; rows]);
            rms_norm::forward(
                &dev,
                rms_norm::Forward {
                    out: view_mut(&mut y),
                    rstd: view_mut(&mut rstd),
                    x: view(&x),
                    weight: view(&w),
                    shape: s,
                },
            )
            .unwrap();
            let (mut dx, mut dw) = (vec![9.0; rows * width], vec![0.0; width]);
            let (dout_view, x_view) = (view(&dout), view(&x));
            rms_norm::backward(
                &dev,
                rms_norm::Backward {
                    dx: view_mut(&mut dx),
                    rounded: None,
                    normed: None,
                    dweight: view_mut(&mut dw),
                    dout: dout_view,
                    x: x_view,
                    weight: view(&w),
                    rstd: view(&rstd),
                    shape: s,
                },
            )
            .unwrap();
            assert_close("dx", &dx, &oracle[0]);
            assert_close("dweight", &dw, &oracle[1]);
            assert_slopes("dx", &dx, &x_slopes);
            assert_slopes("dweight", &dw, &w_slopes);
            dx.copy_from_slice(&dresidual);
            let mut again = vec![9.0; rows * width];
            rms_norm::backward_residual(
                &dev,
                rms_norm::BackwardResidual {
                    dx: view_mut(&mut dx),
                    rounded: None,
                    normed: Some(view_mut(&mut again)),
                    dweight: view_mut(&mut dw),
                    dout: dout_view,
                    x: x_view,
                    weight: view(&w),
                    rstd: view(&rstd),
                    shape: s,
                },
            )
            .unwrap();
            assert_close("dx with residual", &dx, &with_residual);
            assert!(again == y, "the norm computed again has the same bits");
            assert_close("dweight, added twice", &dw, &doubled(&oracle[1]));
        }
    }
}

/// Rotates the first `heads` heads of each row, with candle's primitive ops.
fn candle_rope(x: &Tensor, s: rope::Shape) -> Tensor {
    let (pairs, rotated_width) = (s.head_size / 2, s.heads * s.head_size);
    let angles: Vec<f64> = (0..s.rows)
        .flat_map(|row| {
            let position = (s.first_position + row % s.positions) as f64;
            (0..pairs).map(move |pair| position / THETA.powf(pair as f64 / pairs as f64))
        })
        .collect();
    let angles = Tensor::from_vec(angles, (s.rows, 1, pairs), &candle_core::Device::Cpu).unwrap();
    let (cos, sin) = (angles.cos().unwrap(), angles.sin().unwrap());
    let heads =
        x.narrow(1, 0, rotated_width).unwrap().reshape((s.rows, s.heads, pairs, 2)).unwrap();
    let part = |index| heads.narrow(3, index, 1).unwrap().squeeze(3).unwrap();
    let (even, odd) = (part(0), part(1));
    let times = |a: &Tensor, b: &Tensor| a.broadcast_mul(b).unwrap();
    let first = (times(&even, &cos) - times(&odd, &sin)).unwrap();
    let second = (times(&even, &sin) + times(&odd, &cos)).unwrap();
    let rotated =
        Tensor::stack(&[first, second], 3).unwrap().reshape((s.rows, rotated_width)).unwrap();
    if s.row_width == rotated_width {
        return rotated;
    }
    let rest = x.narrow(1, rotated_width, s.row_width - rotated_width).unwrap();
    Tensor::cat(&[rotated, rest], 1).unwrap()
}

#[test]
fn rope_matches_the_reference_and_candle_and_its_backward_inverts_it() {
    // Rows, heads, head size, elements after the heads, positions, first position.
    for (rows, heads, head_size, extra, positions, first) in [
        (1, 1, 2, 0, 1, 0),
        (7, 3, 6, 5, 7, 0),
        (31, 7, 2, 1, 31, 0),
        (66, 2, 32, 32, 33, 0),
        (5, 1, 64, 1, 5, 11),
        (40, 3, 20, 0, 10, 2),
        (1000, 2, 32, 33, 100, 0),
    ] {
        let row_width = heads * head_size + extra;
        let s = rope::Shape { rows, row_width, heads, head_size, positions, first_position: first };
        let (cos, sin) = rope::tables(first + positions, head_size, THETA);
        let (x, dout) = (random(1, rows * row_width), random(2, rows * row_width));
        let vx = variable(&x, &[rows, row_width]);
        let out = candle_rope(&vx, s);
        let oracle = candle_gradients(&out, &dout, &[&vx]);
        let x_slopes = slopes(&x, &dout, |x| rope::reference::forward(x, THETA, s));
        for dev in devices() {
            let mut y = x.clone();
            rope::forward(
                &dev,
                rope::Forward { x: view_mut(&mut y), cos: view(&cos), sin: view(&sin), shape: s },
            )
            .unwrap();
            assert_close("out", &y, &rope::reference::forward(&wide(&x), THETA, s));
            assert_close("out", &y, &values(&out));
            rope::backward(
                &dev,
                rope::Backward { dx: view_mut(&mut y), cos: view(&cos), sin: view(&sin), shape: s },
            )
            .unwrap();
            assert_close("backward of forward", &y, &wide(&x));
            let mut dx = dout.clone();
            rope::backward(
                &dev,
                rope::Backward {
                    dx: view_mut(&mut dx),
                    cos: view(&cos),
                    sin: view(&sin),
                    shape: s,
                },
            )
            .unwrap();
            assert_close("dx", &dx, &oracle[0]);
            assert_slopes("dx", &dx, &x_slopes);
        }
    }
}

fn candle_silu(x: &Tensor) -> Tensor {
    let sigma = (x.neg().unwrap().exp().unwrap() + 1.0).unwrap().recip().unwrap();
    x.mul(&sigma).unwrap()
}

const GATE_SIZES: [(usize, usize); 6] =
    [(1, 1), (7, 31), (33, 33), (100, 7), (10, 1000), (1000, 33)];

#[test]
fn swiglu_matches_the_reference_finite_differences_and_candle() {
    for (rows, width) in GATE_SIZES {
        let s = swiglu::Shape { rows, width };
        let x: Vec<f32> = random(1, 2 * rows * width).iter().map(|v| v * 12.0).collect();
        let dout = random(2, rows * width);
        let vx = variable(&x, &[rows, 2 * width]);
        let gate = candle_silu(&vx.narrow(1, 0, width).unwrap());
        let out = gate.mul(&vx.narrow(1, width, width).unwrap()).unwrap();
        let oracle = candle_gradients(&out, &dout, &[&vx]);
        let x_slopes = slopes(&x, &dout, |x| swiglu::reference::forward(x, s));
        for dev in devices() {
            let (mut y, mut dx) = (vec![9.0; rows * width], vec![9.0; 2 * rows * width]);
            swiglu::forward(
                &dev,
                swiglu::Forward { out: view_mut(&mut y), gate_up: view(&x), shape: s },
            )
            .unwrap();
            assert_close("out", &y, &swiglu::reference::forward(&wide(&x), s));
            assert_close("out", &y, &values(&out));
            swiglu::backward(
                &dev,
                swiglu::Backward {
                    dgate_up: view_mut(&mut dx),
                    dout: view(&dout),
                    gate_up: view(&x),
                    shape: s,
                },
            )
            .unwrap();
            assert_close("dx", &dx, &oracle[0]);
            assert_slopes("dx", &dx, &x_slopes);
            let (mut in_place, mut recomputed) = (x.clone(), dout.clone());
            swiglu::backward_in_place(
                &dev,
                swiglu::BackwardInPlace {
                    gate_up: view_mut(&mut in_place),
                    out: view_mut(&mut recomputed),
                    recompute: true,
                    shape: s,
                },
            )
            .unwrap();
            assert_close("dx in place", &in_place, &oracle[0]);
            assert!(recomputed == y, "backward_in_place recomputes the same output bits");
        }
    }
}

#[test]
fn silu_matches_the_reference_finite_differences_and_candle() {
    for len in [1, 7, 31, 33, 100, 1000, 70_001] {
        let x: Vec<f32> = random(1, len).iter().map(|v| v * 12.0).collect();
        let dout = random(2, len);
        let vx = variable(&x, &[len]);
        let out = candle_silu(&vx);
        let oracle = candle_gradients(&out, &dout, &[&vx]);
        let x_slopes = slopes(&x, &dout, silu::reference::forward);
        for dev in devices() {
            let (mut y, mut dx) = (vec![9.0; len], vec![9.0; len]);
            silu::forward(&dev, silu::Forward { out: view_mut(&mut y), x: view(&x) }).unwrap();
            assert_close("out", &y, &silu::reference::forward(&wide(&x)));
            assert_close("out", &y, &values(&out));
            silu::backward(
                &dev,
                silu::Backward { dx: view_mut(&mut dx), dout: view(&dout), x: view(&x) },
            )
            .unwrap();
            assert_close("dx", &dx, &oracle[0]);
            assert_slopes("dx", &dx, &x_slopes);
        }
    }
}

#[test]
fn silu_of_huge_numbers_does_not_overflow_and_nan_stays_nan() {
    for dev in devices() {
        let x = [1e30, -1e30, 200.0, -200.0, f32::NAN];
        let mut y = [9.0; 5];
        silu::forward(&dev, silu::Forward { out: view_mut(&mut y), x: view(&x) }).unwrap();
        assert_eq!((y[0], y[2]), (1e30, 200.0));
        assert!(y[3].abs() < 1e-30 && y[4].is_nan());
    }
}

#[test]
fn wrong_buffer_sizes_and_sizes_of_zero_are_coded_errors() {
    let dev = &devices()[0];
    let s = rms_norm::Shape { rows: 2, width: 3, eps: 1e-5 };
    let norm = |x: &[f32], out: &mut [f32], rstd: &mut [f32], w: &[f32], s| {
        rms_norm::forward(
            dev,
            rms_norm::Forward {
                out: view_mut(out),
                rstd: view_mut(rstd),
                x: view(x),
                weight: view(w),
                shape: s,
            },
        )
    };
    let error = norm(&[0.0; 6], &mut [0.0; 6], &mut [0.0; 1], &[0.0; 3], s).unwrap_err();
    assert_eq!(error.code(), "ERR_SHAPE_MISMATCH");
    assert!(error.to_string().contains("rstd has 1 elements but needs 2"));
    let error =
        norm(&[], &mut [], &mut [0.0; 2], &[], rms_norm::Shape { width: 0, ..s }).unwrap_err();
    assert_eq!(error.code(), "ERR_INVALID_ARGUMENT");
    let gate = swiglu::Shape { rows: 2, width: 0 };
    let error = swiglu::forward(
        dev,
        swiglu::Forward { out: view_mut(&mut []), gate_up: view(&[]), shape: gate },
    )
    .unwrap_err();
    assert_eq!(error.code(), "ERR_INVALID_ARGUMENT");
    let rotation = rope::Shape {
        rows: 1,
        row_width: 2,
        heads: 1,
        head_size: 2,
        positions: 0,
        first_position: 0,
    };
    let error = rope::forward(
        dev,
        rope::Forward {
            x: view_mut(&mut [0.0; 2]),
            cos: view(&[]),
            sin: view(&[]),
            shape: rotation,
        },
    )
    .unwrap_err();
    assert_eq!(error.code(), "ERR_INVALID_ARGUMENT");
    let beyond = rope::Shape { positions: 1, first_position: 5, ..rotation };
    let (cos, sin) = rope::tables(5, 2, THETA);
    let error = rope::forward(
        dev,
        rope::Forward {
            x: view_mut(&mut [0.0; 2]),
            cos: view(&cos),
            sin: view(&sin),
            shape: beyond,
        },
    )
    .unwrap_err();
    assert_eq!(error.code(), "ERR_SHAPE_MISMATCH");
}
