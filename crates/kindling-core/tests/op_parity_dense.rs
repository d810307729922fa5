//! Linear, matmul and embedding, forward and backward, against f64 references, finite differences
//! and candle's autograd, at odd sizes and on every instruction set.

mod common;

use std::sync::Arc;

use candle_core::Tensor;
use common::*;
use kindling_core::cpu::{Cpu, MatmulBackend, MatmulKernel};
use kindling_core::device::Device;
use kindling_core::dtype::Dtype;
use kindling_core::ops::{embedding, linear, matmul};
use kindling_core::simd::Isa;

/// Rows, inputs and outputs. Few rows take a different path from many, and each of the three is
/// small and large in turn.
const LINEAR_SIZES: [(usize, usize, usize); 10] = [
    (1, 1, 1),
    (1, 7, 5),
    (3, 1, 31),
    (7, 1000, 33),
    (31, 33, 100),
    (33, 31, 7),
    (100, 33, 65),
    (33, 100, 1000),
    (257, 100, 1),
    (1000, 31, 33),
];

#[test]
fn linear_matches_the_reference_and_candle() {
    // The weight of the last size is transposed in several blocks.
    for (rows, inputs, outputs) in LINEAR_SIZES.into_iter().chain([(256, 700, 1601)]) {
        let s = linear::Shape { rows, inputs, outputs };
        let (x, w, b) = (random(1, rows * inputs), random(2, outputs * inputs), random(3, outputs));
        let vx = variable(&x, &[rows, inputs]);
        let (vw, vb) = (variable(&w, &[outputs, inputs]), variable(&b, &[outputs]));
        let product = vx.matmul(&vw.t().unwrap()).unwrap();
        let out = product.broadcast_add(&vb).unwrap();
        for dev in devices().into_iter().chain(f32_kernels().map(|backend| device_of(backend, 2))) {
            let mut y = vec![9.0; rows * outputs];
            linear::forward(
                &dev,
                linear::Forward {
                    out: view_mut(&mut y),
                    x: view(&x),
                    weight: view(&w),
                    bias: Some(view(&b)),
                    shape: s,
                },
            )
            .unwrap();
            assert_close(
                "out",
                &y,
                &linear::reference::forward(&wide(&x), &wide(&w), Some(&wide(&b)), s),
            );
            assert_close("out", &y, &values(&out));
            linear::forward(
                &dev,
                linear::Forward {
                    out: view_mut(&mut y),
                    x: view(&x),
                    weight: view(&w),
                    bias: None,
                    shape: s,
                },
            )
            .unwrap();
            assert_close("out without bias", &y, &values(&product));
        }
    }
}

/// Returns the packed kernel for f32, if the machine has AVX-512. It computes forward products of
/// many rows, and all products of at least 2^27 multiply-adds.
fn f32_kernels() -> impl Iterator<Item = MatmulBackend> {
    MatmulKernel::available()
        .into_iter()
        .filter(|kernel| kernel.dtype() == Dtype::F32)
        .map(MatmulBackend::Packed)
}

fn device_of(backend: MatmulBackend, threads: usize) -> Device {
    Device::Cpu(Arc::new(Cpu::new(threads, Isa::detect(), backend)))
}

#[test]
fn large_products_match_candle_with_the_same_bits_for_any_number_of_threads() {
    let large = linear::Shape { rows: 641, inputs: 521, outputs: 411 };
    assert!(large.rows * large.inputs * large.outputs > 1 << 27);
    check_for_any_number_of_threads(large);
    // Small, so the forward product takes the kernel and the backward ones the `gemm` crate.
    check_for_any_number_of_threads(linear::Shape { rows: 768, inputs: 128, outputs: 344 });
    check_for_any_number_of_threads(linear::Shape { rows: 301, inputs: 45, outputs: 131 });
}

fn check_for_any_number_of_threads(s: linear::Shape) {
    let (x, w, b) =
        (random(1, s.rows * s.inputs), random(2, s.outputs * s.inputs), random(3, s.outputs));
    let dout = random(4, s.rows * s.outputs);
    let (vx, vw) = (variable(&x, &[s.rows, s.inputs]), variable(&w, &[s.outputs, s.inputs]));
    let out =
        vx.matmul(&vw.t().unwrap()).unwrap().broadcast_add(&tensor(&b, &[s.outputs])).unwrap();
    let oracle = candle_gradients(&out, &dout, &[&vx, &vw]);
    for backend in f32_kernels().chain([MatmulBackend::Gemm]) {
        let run = |threads| {
            let dev = device_of(backend, threads);
            let (mut y, mut dx) = (vec![9.0; s.rows * s.outputs], vec![9.0; s.rows * s.inputs]);
            let mut dw = vec![0.0; s.outputs * s.inputs];
            linear::forward(
                &dev,
                linear::Forward {
                    out: view_mut(&mut y),
                    x: view(&x),
                    weight: view(&w),
                    bias: Some(view(&b)),
                    shape: s,
                },
            )
            .unwrap();
            linear::backward_input(
                &dev,
                linear::BackwardInput {
                    dx: view_mut(&mut dx),
                    dout: view(&dout),
                    weight: view(&w),
                    shape: s,
                    accumulate: false,
                },
            )
            .unwrap();
            linear::backward_weight(
                &dev,
                linear::BackwardWeight {
                    dweight: view_mut(&mut dw),
                    dbias: None,
                    dout: view(&dout),
                    x: view(&x),
                    shape: s,
                },
            )
            .unwrap();
            [y, dx, dw]
        };
        let found = run(1);
        assert_close("out", &found[0], &values(&out));
        assert_close("dx", &found[1], &oracle[0]);
        assert_close("dweight", &found[2], &oracle[1]);
        assert!([2, 3].into_iter().all(|threads| run(threads) == found), "{backend:?}");
    }
}

#[test]
fn linear_backward_matches_finite_differences_and_candle() {
    for (rows, inputs, outputs) in LINEAR_SIZES {
        let s = linear::Shape { rows, inputs, outputs };
        let (x, w, b) = (random(1, rows * inputs), random(2, outputs * inputs), random(3, outputs));
        let dout = random(4, rows * outputs);
        let vx = variable(&x, &[rows, inputs]);
        let (vw, vb) = (variable(&w, &[outputs, inputs]), variable(&b, &[outputs]));
        let out = vx.matmul(&vw.t().unwrap()).unwrap().broadcast_add(&vb).unwrap();
        let oracle = candle_gradients(&out, &dout, &[&vx, &vw, &vb]);
        let (wx, ww, wb) = (wide(&x), wide(&w), wide(&b));
        let x_slopes = slopes(&x, &dout, |x| linear::reference::forward(x, &ww, Some(&wb), s));
        let w_slopes = slopes(&w, &dout, |w| linear::reference::forward(&wx, w, Some(&wb), s));
        let b_slopes = slopes(&b, &dout, |b| linear::reference::forward(&wx, &ww, Some(b), s));
        for dev in devices() {
            let mut dx = vec![9.0; rows * inputs];
            linear::backward_input(
                &dev,
                linear::BackwardInput {
                    dx: view_mut(&mut dx),
                    dout: view(&dout),
                    weight: view(&w),
                    shape: s,
                    accumulate: false,
                },
            )
            .unwrap();
            assert_close("dx", &dx, &oracle[0]);
            assert_slopes("dx", &dx, &x_slopes);
            linear::backward_input(
                &dev,
                linear::BackwardInput {
                    dx: view_mut(&mut dx),
                    dout: view(&dout),
                    weight: view(&w),
                    shape: s,
                    accumulate: true,
                },
            )
            .unwrap();
            assert_close("dx, added to", &dx, &doubled(&oracle[0]));
            let (mut dw, mut db) = (vec![0.0; outputs * inputs], vec![0.0; outputs]);
            let add = |dw: &mut [f32], db: Option<&mut [f32]>| {
                let db = db.map(view_mut);
                linear::backward_weight(
                    &dev,
                    linear::BackwardWeight {
                        dweight: view_mut(dw),
                        dbias: db,
                        dout: view(&dout),
                        x: view(&x),
                        shape: s,
                    },
                )
                .unwrap();
            };
            add(&mut dw, Some(&mut db));
            assert_close("dweight", &dw, &oracle[1]);
            assert_close("dbias", &db, &oracle[2]);
            assert_slopes("dweight", &dw, &w_slopes);
            assert_slopes("dbias", &db, &b_slopes);
            add(&mut dw, Some(&mut db));
            assert_close("dbias, added twice", &db, &doubled(&oracle[2]));
            assert_close("dweight, added twice", &dw, &doubled(&oracle[1]));
            let mut alone = vec![0.0; outputs * inputs];
            add(&mut alone, None);
            assert_close("dweight without bias", &alone, &oracle[1]);
        }
    }
}

#[test]
fn matmul_matches_the_reference_finite_differences_and_candle() {
    for (m, k, n) in
        [(1, 1, 1), (7, 31, 33), (65, 7, 100), (1, 1000, 31), (1000, 33, 1), (33, 100, 1000)]
    {
        let s = matmul::Shape { m, k, n };
        let (a, b, dout) = (random(1, m * k), random(2, k * n), random(3, m * n));
        let (va, vb) = (variable(&a, &[m, k]), variable(&b, &[k, n]));
        let out = va.matmul(&vb).unwrap();
        let oracle = candle_gradients(&out, &dout, &[&va, &vb]);
        let (wa, wb) = (wide(&a), wide(&b));
        let a_slopes = slopes(&a, &dout, |a| matmul::reference::forward(a, &wb, s));
        let b_slopes = slopes(&b, &dout, |b| matmul::reference::forward(&wa, b, s));
        for dev in devices() {
            let (mut y, mut da, mut db) = (vec![9.0; m * n], vec![9.0; m * k], vec![9.0; k * n]);
            matmul::forward(
                &dev,
                matmul::Forward { out: view_mut(&mut y), a: view(&a), b: view(&b), shape: s },
            )
            .unwrap();
            assert_close("out", &y, &matmul::reference::forward(&wa, &wb, s));
            assert_close("out", &y, &values(&out));
            matmul::backward(
                &dev,
                matmul::Backward {
                    da: view_mut(&mut da),
                    db: view_mut(&mut db),
                    dout: view(&dout),
                    a: view(&a),
                    b: view(&b),
                    shape: s,
                },
            )
            .unwrap();
            assert_close("da", &da, &oracle[0]);
            assert_close("db", &db, &oracle[1]);
            assert_slopes("da", &da, &a_slopes);
            assert_slopes("db", &db, &b_slopes);
        }
    }
}

#[test]
fn embedding_matches_the_reference_finite_differences_and_candle() {
    for (rows, d_model, vocab_size) in
        [(1, 1, 1), (31, 7, 5), (7, 1000, 33), (100, 33, 11), (1000, 65, 7), (1000, 100, 1000)]
    {
        let s = embedding::Shape { rows, d_model, vocab_size };
        let (w, dout) = (random(1, vocab_size * d_model), random(2, rows * d_model));
        let ids: Vec<u32> = (0..rows as u32).map(|i| (i * 7 + i * i) % vocab_size as u32).collect();
        let vw = variable(&w, &[vocab_size, d_model]);
        let index = Tensor::from_slice(&ids, rows, &candle_core::Device::Cpu).unwrap();
        let out = vw.index_select(&index, 0).unwrap();
        let oracle = candle_gradients(&out, &dout, &[&vw]);
        let w_slopes = slopes(&w, &dout, |w| embedding::reference::forward(&ids, w, s));
        for dev in devices() {
            let (mut y, mut dw) = (vec![9.0; rows * d_model], vec![0.0; vocab_size * d_model]);
            let args =
                embedding::Forward { out: view_mut(&mut y), ids: &ids, weight: view(&w), shape: s };
            embedding::forward(&dev, args).unwrap();
            assert_close("out", &y, &embedding::reference::forward(&ids, &wide(&w), s));
            assert_close("out", &y, &values(&out));
            let mut backward = || {
                let (dweight, dout) = (view_mut(&mut dw), view(&dout));
                let args = embedding::Backward { dweight, dout, ids: &ids, shape: s };
                embedding::backward(&dev, args).unwrap();
                dw.clone()
            };
            let dw = backward();
            assert_close("dweight", &dw, &oracle[0]);
            assert_slopes("dweight", &dw, &w_slopes);
            let dw = backward();
            assert_close("dweight, added twice", &dw, &doubled(&oracle[0]));
        }
    }
}

#[test]
fn an_id_outside_the_vocabulary_is_an_error_and_writes_nothing() {
    let s = embedding::Shape { rows: 2, d_model: 1, vocab_size: 3 };
    for dev in devices() {
        let mut out = [5.0; 2];
        let args = embedding::Forward {
            out: view_mut(&mut out),
            ids: &[0, 3],
            weight: view(&[1.0; 3]),
            shape: s,
        };
        let error = embedding::forward(&dev, args).unwrap_err();
        assert_eq!(error.code(), "ERR_TOKEN_OUT_OF_RANGE");
        assert!(error.to_string().contains("token id 3 at position 1"));
        assert_eq!(out, [5.0; 2]);
        let mut dweight = [5.0; 3];
        let args = embedding::Backward {
            dweight: view_mut(&mut dweight),
            dout: view(&[1.0; 2]),
            ids: &[0, 3],
            shape: s,
        };
        let error = embedding::backward(&dev, args).unwrap_err();
        assert_eq!(error.code(), "ERR_TOKEN_OUT_OF_RANGE");
        assert_eq!(dweight, [5.0; 3]);
    }
}

#[test]
fn no_rows_are_allowed_and_no_width_is_an_error() {
    let dev = &devices()[0];
    let none = linear::Shape { rows: 0, inputs: 3, outputs: 2 };
    let w = [1.0; 6];
    linear::forward(
        dev,
        linear::Forward {
            out: view_mut(&mut []),
            x: view(&[]),
            weight: view(&w),
            bias: Some(view(&w[..2])),
            shape: none,
        },
    )
    .unwrap();
    linear::backward_input(
        dev,
        linear::BackwardInput {
            dx: view_mut(&mut []),
            dout: view(&[]),
            weight: view(&w),
            shape: none,
            accumulate: false,
        },
    )
    .unwrap();
    let (mut dw, mut db) = ([4.0; 6], [4.0; 2]);
    linear::backward_weight(
        dev,
        linear::BackwardWeight {
            dweight: view_mut(&mut dw),
            dbias: Some(view_mut(&mut db)),
            dout: view(&[]),
            x: view(&[]),
            shape: none,
        },
    )
    .unwrap();
    assert_eq!((dw, db), ([4.0; 6], [4.0; 2]));
    let flat = linear::Shape { rows: 2, inputs: 0, outputs: 2 };
    let error = linear::forward(
        dev,
        linear::Forward {
            out: view_mut(&mut [0.0; 4]),
            x: view(&[]),
            weight: view(&[]),
            bias: None,
            shape: flat,
        },
    )
    .unwrap_err();
    assert_eq!(error.code(), "ERR_INVALID_ARGUMENT");
    assert!(error.to_string().contains("inputs is 0"));
}
