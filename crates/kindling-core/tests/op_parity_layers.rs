//! Linear, matmul, embedding, RMSNorm, RoPE, SwiGLU and SiLU: forward and backward against plain f64 loops with finite
//! differences and against candle's autograd of primitive ops, on odd sizes and every instruction set.

mod common;

use candle_core::{D, Tensor};
use common::*;
use kindling_core::buffer::{In, Out};
use kindling_core::ops::{embedding, linear, matmul, rms_norm, rope, silu, swiglu};

fn view(x: &[f32]) -> In<'_> {
    In::from(x)
}

fn view_mut(x: &mut [f32]) -> Out<'_> {
    Out::from(x)
}

#[test]
fn linear_matches_the_reference_and_candle() {
    for (rows, inputs, outputs) in [(1, 7, 5), (3, 1, 31), (33, 31, 7), (100, 33, 65), (257, 100, 33)] {
        let s = linear::Shape { rows, inputs, outputs };
        let (x, w, b) = (random(1, rows * inputs), random(2, outputs * inputs), random(3, outputs));
        let dout = random(4, rows * outputs);
        let (vx, vw, vb) =
            (variable(&x, &[rows, inputs]), variable(&w, &[outputs, inputs]), variable(&b, &[outputs]));
        let out = vx.matmul(&vw.t().unwrap()).unwrap().broadcast_add(&vb).unwrap();
        let oracle = candle_gradients(&out, &dout, &[&vx, &vw, &vb]);
        for dev in devices() {
            let mut y = vec![9.0; rows * outputs];
            linear::forward(&dev, view_mut(&mut y), view(&x), view(&w), Some(view(&b)), s).unwrap();
            assert_close("out", &y, &linear::reference::forward(&wide(&x), &wide(&w), Some(&wide(&b)), s));
            assert_close("out", &y, &values(&out));
            let mut dx = vec![9.0; rows * inputs];
            linear::backward_input(&dev, view_mut(&mut dx), view(&dout), view(&w), s, false).unwrap();
            assert_close("dx", &dx, &oracle[0]);
            let (mut dw, mut db) = (vec![0.0; outputs * inputs], vec![0.0; outputs]);
            let add = |dw: &mut [f32], db: &mut [f32]| {
                linear::backward_weight(&dev, view_mut(dw), Some(view_mut(db)), view(&dout), view(&x), s)
                    .unwrap();
            };
            add(&mut dw, &mut db);
            assert_close("dweight", &dw, &oracle[1]);
            assert_close("dbias", &db, &oracle[2]);
            add(&mut dw, &mut db);
            assert_close("dweight, added twice", &dw, &oracle[1].iter().map(|v| 2.0 * v).collect::<Vec<_>>());
        }
        if rows * inputs < 200 {
            let slopes = finite_differences(&wide(&x), &dout, |x| {
                linear::reference::forward(x, &wide(&w), Some(&wide(&b)), s)
            });
            assert_close(
                "finite differences",
                &oracle[0].iter().map(|v| *v as f32).collect::<Vec<_>>(),
                &slopes,
            );
        }
    }
}

#[test]
fn matmul_matches_the_reference_and_candle() {
    for (m, k, n) in [(1, 1, 1), (7, 31, 33), (65, 7, 100)] {
        let s = matmul::Shape { m, k, n };
        let (a, b, dout) = (random(1, m * k), random(2, k * n), random(3, m * n));
        let (va, vb) = (variable(&a, &[m, k]), variable(&b, &[k, n]));
        let out = va.matmul(&vb).unwrap();
        let oracle = candle_gradients(&out, &dout, &[&va, &vb]);
        for dev in devices() {
            let (mut y, mut da, mut db) = (vec![9.0; m * n], vec![9.0; m * k], vec![9.0; k * n]);
            matmul::forward(&dev, view_mut(&mut y), view(&a), view(&b), s).unwrap();
            assert_close("out", &y, &matmul::reference::forward(&wide(&a), &wide(&b), s));
            matmul::backward(&dev, view_mut(&mut da), view_mut(&mut db), view(&dout), view(&a), view(&b), s)
                .unwrap();
            assert_close("da", &da, &oracle[0]);
            assert_close("db", &db, &oracle[1]);
        }
    }
}

#[test]
fn embedding_gathers_and_scatters_like_candle() {
    for (rows, d_model, vocab_size) in [(1, 1, 1), (31, 7, 5), (100, 33, 11), (1000, 65, 7)] {
        let s = embedding::Shape { rows, d_model, vocab_size };
        let (w, dout) = (random(1, vocab_size * d_model), random(2, rows * d_model));
        let ids: Vec<u32> = (0..rows as u32).map(|i| (i * 7 + i * i) % vocab_size as u32).collect();
        let vw = variable(&w, &[vocab_size, d_model]);
        let index = Tensor::from_slice(&ids, rows, &candle_core::Device::Cpu).unwrap();
        let out = vw.index_select(&index, 0).unwrap();
        let oracle = candle_gradients(&out, &dout, &[&vw]);
        for dev in devices() {
            let (mut y, mut dw) = (vec![9.0; rows * d_model], vec![0.0; vocab_size * d_model]);
            embedding::forward(&dev, view_mut(&mut y), &ids, view(&w), s).unwrap();
            assert_close("out", &y, &embedding::reference::forward(&ids, &wide(&w), s));
            embedding::backward(&dev, view_mut(&mut dw), view(&dout), &ids, s).unwrap();
            assert_close("dweight", &dw, &oracle[0]);
        }
    }
}

#[test]
fn an_id_outside_the_vocabulary_is_named_and_nothing_is_written() {
    let s = embedding::Shape { rows: 2, d_model: 1, vocab_size: 3 };
    let mut out = [5.0, 5.0];
    let error =
        embedding::forward(&devices()[0], view_mut(&mut out), &[0, 3], view(&[1.0; 3]), s).unwrap_err();
    assert_eq!(error.code(), "ERR_TOKEN_OUT_OF_RANGE");
    assert!(error.to_string().contains("token id 3 at position 1"));
    assert!(out.iter().all(|x| *x == 5.0));
}

fn candle_rms_norm(x: &Tensor, weight: &Tensor, eps: f32) -> Tensor {
    let mean = x.sqr().unwrap().mean_keepdim(D::Minus1).unwrap();
    let rstd = (mean + f64::from(eps)).unwrap().sqrt().unwrap().recip().unwrap();
    x.broadcast_mul(&rstd).unwrap().broadcast_mul(weight).unwrap()
}

#[test]
fn rms_norm_matches_the_reference_and_candle() {
    for (rows, width) in [(1, 3), (7, 31), (33, 33), (100, 7), (65, 1000)] {
        let s = rms_norm::Shape { rows, width, eps: 1e-5 };
        let (x, residual) = (random(1, rows * width), random(2, rows * width));
        let (w, dout, dresidual) =
            (random_around(3, width, 1.0, 0.5), random(4, rows * width), random(5, rows * width));
        let (vx, vw) = (variable(&x, &[rows, width]), variable(&w, &[width]));
        let out = candle_rms_norm(&vx, &vw, s.eps);
        let oracle = candle_gradients(&out, &dout, &[&vx, &vw]);
        for dev in devices() {
            let (mut y, mut rstd) = (vec![9.0; rows * width], vec![9.0; rows]);
            rms_norm::forward(&dev, view_mut(&mut y), view_mut(&mut rstd), view(&x), view(&w), s).unwrap();
            assert_close("out", &y, &rms_norm::reference::forward(&wide(&x), &wide(&w), s));
            assert_close("out", &y, &values(&out));
            let (mut dx, mut dw) = (vec![9.0; rows * width], vec![0.0; width]);
            rms_norm::backward(
                &dev,
                view_mut(&mut dx),
                view_mut(&mut dw),
                view(&dout),
                view(&x),
                view(&w),
                view(&rstd),
                s,
            )
            .unwrap();
            assert_close("dx", &dx, &oracle[0]);
            assert_close("dweight", &dw, &oracle[1]);
            rms_norm::backward_residual(
                &dev,
                view_mut(&mut dx),
                view_mut(&mut dw),
                view(&dout),
                view(&dresidual),
                view(&x),
                view(&w),
                view(&rstd),
                s,
            )
            .unwrap();
            let with_residual: Vec<f64> =
                oracle[0].iter().zip(&dresidual).map(|(a, b)| a + f64::from(*b)).collect();
            assert_close("dx with residual", &dx, &with_residual);
            assert_close("dweight, added twice", &dw, &oracle[1].iter().map(|v| 2.0 * v).collect::<Vec<_>>());
            let mut sum = vec![9.0; rows * width];
            rms_norm::forward_residual(
                &dev,
                view_mut(&mut y),
                view_mut(&mut sum),
                view_mut(&mut rstd),
                view(&x),
                view(&residual),
                view(&w),
                s,
            )
            .unwrap();
            let expected: Vec<f64> =
                x.iter().zip(&residual).map(|(a, b)| f64::from(*a) + f64::from(*b)).collect();
            assert_close("sum", &sum, &expected);
            assert_close("norm of sum", &y, &rms_norm::reference::forward(&expected, &wide(&w), s));
        }
        if rows * width < 300 {
            let slopes =
                finite_differences(&wide(&x), &dout, |x| rms_norm::reference::forward(x, &wide(&w), s));
            assert_close(
                "finite differences",
                &oracle[0].iter().map(|v| *v as f32).collect::<Vec<_>>(),
                &slopes,
            );
        }
    }
}

#[test]
fn rope_rotates_interleaved_pairs_and_its_backward_undoes_the_turn() {
    for (rows, heads, head_size, extra, positions, first) in [
        (1, 1, 2, 0, 1, 0),
        (7, 3, 6, 5, 7, 0),
        (66, 2, 32, 32, 33, 0),
        (5, 1, 64, 1, 5, 11),
        (40, 3, 20, 0, 10, 2),
    ] {
        let row_width = heads * head_size + extra;
        let s = rope::Shape { rows, row_width, heads, head_size, positions, first_position: first };
        let (cos, sin) = rope::tables(first + positions, head_size, 10_000.0);
        let x = random(1, rows * row_width);
        let dout = random(2, rows * row_width);
        let expected = rope::reference::forward(&wide(&x), 10_000.0, s);
        let slopes = (rows * row_width < 300)
            .then(|| finite_differences(&wide(&x), &dout, |x| rope::reference::forward(x, 10_000.0, s)));
        for dev in devices() {
            let mut y = x.clone();
            rope::forward(&dev, view_mut(&mut y), view(&cos), view(&sin), s).unwrap();
            assert_close("out", &y, &expected);
            rope::backward(&dev, view_mut(&mut y), view(&cos), view(&sin), s).unwrap();
            assert_close("turned back", &y, &wide(&x));
            if let Some(slopes) = &slopes {
                let mut dx = dout.clone();
                rope::backward(&dev, view_mut(&mut dx), view(&cos), view(&sin), s).unwrap();
                assert_close("dx", &dx, slopes);
            }
        }
    }
}

#[test]
fn swiglu_and_silu_match_the_reference_and_candle() {
    for (rows, width) in [(1, 1), (7, 31), (33, 33), (10, 1000)] {
        let s = swiglu::Shape { rows, width };
        let x: Vec<f32> = random(1, 2 * rows * width).iter().map(|v| v * 12.0).collect();
        let dout = random(2, rows * width);
        let vx = variable(&x, &[rows, 2 * width]);
        let gate = vx.narrow(1, 0, width).unwrap();
        let sigma = ((gate.neg().unwrap().exp().unwrap() + 1.0).unwrap()).recip().unwrap();
        let out = gate.mul(&sigma).unwrap().mul(&vx.narrow(1, width, width).unwrap()).unwrap();
        let oracle = candle_gradients(&out, &dout, &[&vx]);
        let half = x[..rows * width].to_vec();
        let silu_slopes =
            (rows * width < 300).then(|| finite_differences(&wide(&half), &dout, silu::reference::forward));
        for dev in devices() {
            let (mut y, mut dx) = (vec![9.0; rows * width], vec![9.0; 2 * rows * width]);
            swiglu::forward(&dev, view_mut(&mut y), view(&x), s).unwrap();
            assert_close("out", &y, &swiglu::reference::forward(&wide(&x), s));
            swiglu::backward(&dev, view_mut(&mut dx), view(&dout), view(&x), s).unwrap();
            assert_close("dx", &dx, &oracle[0]);
            silu::forward(&dev, view_mut(&mut y), view(&half)).unwrap();
            assert_close("silu", &y, &silu::reference::forward(&wide(&half)));
            if let Some(slopes) = &silu_slopes {
                let mut dx = vec![9.0; rows * width];
                silu::backward(&dev, view_mut(&mut dx), view(&dout), view(&half)).unwrap();
                assert_close("silu dx", &dx, slopes);
            }
        }
    }
}

#[test]
fn results_are_the_same_bits_for_any_number_of_threads() {
    let isa = *kindling_core::simd::Isa::available().last().unwrap();
    let (rows, width) = (777, 130);
    let s = linear::Shape { rows, inputs: width, outputs: 2 * width };
    let (x, w, dout) = (random(1, rows * width), random(2, 2 * width * width), random(3, 2 * rows * width));
    let ids: Vec<u32> = (0..rows as u32).map(|i| i % 50).collect();
    let run = |threads: usize| {
        let dev = device(isa, threads);
        let (mut y, mut dx) = (vec![0.0; 2 * rows * width], vec![0.0; rows * width]);
        let (mut dw, mut db) = (vec![0.0; 2 * width * width], vec![0.0; 2 * width]);
        linear::forward(&dev, view_mut(&mut y), view(&x), view(&w), None, s).unwrap();
        linear::backward_input(&dev, view_mut(&mut dx), view(&dout), view(&w), s, false).unwrap();
        linear::backward_weight(&dev, view_mut(&mut dw), Some(view_mut(&mut db)), view(&dout), view(&x), s)
            .unwrap();
        let n = rms_norm::Shape { rows, width, eps: 1e-5 };
        let (mut out, mut rstd, mut dg) = (vec![0.0; rows * width], vec![0.0; rows], vec![0.0; width]);
        let g = random(5, width);
        rms_norm::forward(&dev, view_mut(&mut out), view_mut(&mut rstd), view(&x), view(&g), n).unwrap();
        let mut dn = vec![0.0; rows * width];
        rms_norm::backward(
            &dev,
            view_mut(&mut dn),
            view_mut(&mut dg),
            view(&dx),
            view(&x),
            view(&g),
            view(&rstd),
            n,
        )
        .unwrap();
        let mut de = vec![0.0; 50 * width];
        let e = embedding::Shape { rows, d_model: width, vocab_size: 50 };
        embedding::backward(&dev, view_mut(&mut de), view(&dx), &ids, e).unwrap();
        [y, dx, dw, db, out, dn, dg, de].concat().iter().map(|v| v.to_bits()).collect::<Vec<_>>()
    };
    let one = run(1);
    for threads in [2, 3, 8] {
        assert!(run(threads) == one, "{threads} threads");
    }
}

#[test]
fn a_buffer_of_another_size_is_a_coded_error() {
    let s = rms_norm::Shape { rows: 2, width: 3, eps: 1e-5 };
    let error = rms_norm::forward(
        &devices()[0],
        view_mut(&mut [0.0; 6]),
        view_mut(&mut [0.0; 1]),
        view(&[0.0; 6]),
        view(&[0.0; 3]),
        s,
    )
    .unwrap_err();
    assert_eq!(error.code(), "ERR_SHAPE_MISMATCH");
    assert!(error.to_string().contains("rstd has 1 elements where 2 are needed"));
}
