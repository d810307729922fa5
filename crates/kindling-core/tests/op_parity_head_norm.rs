//! The norm of query and key heads, forward and backward, against f64 loops, finite differences and
//! candle's autograd, at odd sizes and on every instruction set.

mod common;

use candle_core::{D, Tensor};
use common::*;
use kindling_core::ops::head_norm::{self, Shape};

fn shape([rows, q_heads, k_heads, rest, head_size]: [usize; 5]) -> Shape {
    let row_width = (q_heads + k_heads) * head_size + rest;
    Shape { rows, row_width, q_heads, k_heads, head_size, eps: 1e-3 }
}

const SIZES: [[usize; 5]; 5] =
    [[1, 1, 1, 0, 2], [3, 2, 1, 7, 10], [7, 4, 2, 32, 16], [130, 3, 3, 57, 19], [9, 1, 1, 64, 64]];

/// Normalizes the heads of x, which has no other columns.
fn candle(x: &Tensor, weight: &Tensor, s: Shape) -> Tensor {
    let heads = x.reshape((s.rows, s.heads(), s.head_size)).unwrap();
    let mean = heads.sqr().unwrap().mean_keepdim(D::Minus1).unwrap();
    let rstd = (mean + f64::from(s.eps)).unwrap().sqrt().unwrap().recip().unwrap();
    let normed = heads.broadcast_mul(&rstd).unwrap();
    let gain = |kind, count| {
        weight
            .narrow(0, kind * s.head_size, s.head_size)
            .unwrap()
            .broadcast_as((count, s.head_size))
    };
    let gains =
        Tensor::cat(&[gain(0, s.q_heads).unwrap(), gain(1, s.k_heads).unwrap()], 0).unwrap();
    normed.broadcast_mul(&gains).unwrap().reshape((s.rows, s.normed_width())).unwrap()
}

/// Returns the part of each row that is normalized.
fn heads(x: &[f32], s: Shape) -> Vec<f32> {
    x.chunks(s.row_width).flat_map(|row| row[..s.normed_width()].to_vec()).collect()
}

#[test]
fn head_norm_matches_the_reference_finite_differences_and_candle() {
    for s in SIZES.map(shape) {
        let (x, weight) =
            (random(1, s.rows * s.row_width), random_around(2, 2 * s.head_size, 1.0, 0.5));
        let along = random(3, s.rows * s.row_width);
        let expected = head_norm::reference::forward(&wide(&x), &wide(&weight), s);
        let (vx, vw) = (
            variable(&heads(&x, s), &[s.rows, s.normed_width()]),
            variable(&weight, &[2 * s.head_size]),
        );
        let oracle = candle_gradients(&candle(&vx, &vw, s), &heads(&along, s), &[&vx, &vw]);
        let x_slopes = slopes(&x, &along, |x| head_norm::reference::forward(x, &wide(&weight), s));
        let weight_slopes =
            slopes(&weight, &along, |w| head_norm::reference::forward(&wide(&x), w, s));
        for dev in devices() {
            let (mut out, mut saved) = (x.clone(), vec![9.0; s.rows * s.normed_width()]);
            let forward = head_norm::Forward {
                x: view_mut(&mut out),
                saved: Some(view_mut(&mut saved)),
                weight: view(&weight),
                shape: s,
            };
            head_norm::forward(&dev, forward).unwrap();
            assert_close("out", &out, &expected);
            assert!(saved == heads(&x, s), "the heads are saved as they were");
            let mut alone = x.clone();
            let (x, weight) = (view_mut(&mut alone), view(&weight));
            let forward = head_norm::Forward { x, saved: None, weight, shape: s };
            head_norm::forward(&dev, forward).unwrap();
            assert!(alone == out);

            let (mut dx, mut dweight) = (along.clone(), vec![0.0; 2 * s.head_size]);
            for _ in 0..2 {
                dx.copy_from_slice(&along);
                let backward = head_norm::Backward {
                    dx: view_mut(&mut dx),
                    dweight: view_mut(&mut dweight),
                    saved: view(&saved),
                    weight,
                    shape: s,
                };
                head_norm::backward(&dev, backward).unwrap();
            }
            assert_close("dx", &heads(&dx, s), &oracle[0]);
            assert_slopes("dx, and the rest of the row", &dx, &x_slopes);
            assert_close("dweight, added twice", &dweight, &doubled(&oracle[1]));
            let half: Vec<f32> = dweight.iter().map(|w| w / 2.0).collect();
            assert_slopes("dweight", &half, &weight_slopes);
        }
    }
}

#[test]
fn head_norm_is_bitwise_equal_for_any_number_of_threads_and_checks_its_buffers() {
    let s = shape([300, 4, 2, 32, 16]);
    let (x, weight) = (random(1, s.rows * s.row_width), random(2, 2 * s.head_size));
    let isa = *kindling_core::simd::Isa::available().last().unwrap();
    let run = |threads| {
        let dev = device(isa, threads);
        let (mut x, mut dweight) = (x.clone(), vec![0.0; 2 * s.head_size]);
        let mut saved = vec![0.0; s.rows * s.normed_width()];
        let (view_x, view_saved) = (view_mut(&mut x), view_mut(&mut saved));
        let forward = head_norm::Forward {
            x: view_x,
            saved: Some(view_saved),
            weight: view(&weight),
            shape: s,
        };
        head_norm::forward(&dev, forward).unwrap();
        let backward = head_norm::Backward {
            dx: view_mut(&mut x),
            dweight: view_mut(&mut dweight),
            saved: view(&saved),
            weight: view(&weight),
            shape: s,
        };
        head_norm::backward(&dev, backward).unwrap();
        (x, dweight)
    };
    let one = run(1);
    assert!([2, 3, 8].into_iter().all(|threads| run(threads) == one));
    let dev = device(isa, 1);
    for (shape, weight, code) in [
        (s, &weight[1..], "ERR_SHAPE_MISMATCH"),
        (Shape { k_heads: 9, ..s }, &weight[..], "ERR_SHAPE_MISMATCH"),
        (Shape { head_size: 0, ..s }, &weight[..], "ERR_INVALID_ARGUMENT"),
    ] {
        let mut x = x.clone();
        let forward =
            head_norm::Forward { x: view_mut(&mut x), saved: None, weight: view(weight), shape };
        assert_eq!(head_norm::forward(&dev, forward).unwrap_err().code(), code);
    }
}
