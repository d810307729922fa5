//! Tests that linear, matmul, embedding and the ops of layers return the same bits for any number
//! of threads, on every instruction set, at sizes that are cut into many tasks.

mod common;

use common::*;
use kindling_core::device::Device;
use kindling_core::ops::{embedding, linear, matmul, rms_norm, rope, silu, swiglu};
use kindling_core::simd::Isa;

const ROWS: usize = 777;
const WIDTH: usize = 130;

fn dense(dev: &Device) -> Vec<f32> {
    let s = linear::Shape { rows: ROWS, inputs: WIDTH, outputs: 2 * WIDTH };
    let (x, w, b) = (random(1, ROWS * WIDTH), random(2, 2 * WIDTH * WIDTH), random(3, 2 * WIDTH));
    let dout = random(4, 2 * ROWS * WIDTH);
    let (mut y, mut dx) = (vec![0.0; 2 * ROWS * WIDTH], vec![0.0; ROWS * WIDTH]);
    let (mut dw, mut db) = (vec![0.0; 2 * WIDTH * WIDTH], vec![0.0; 2 * WIDTH]);
    linear::forward(
        dev,
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
        dev,
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
        dev,
        linear::BackwardWeight {
            dweight: view_mut(&mut dw),
            dbias: Some(view_mut(&mut db)),
            dout: view(&dout),
            x: view(&x),
            shape: s,
        },
    )
    .unwrap();
    let few = linear::Shape { rows: 3, inputs: 2 * WIDTH, outputs: ROWS };
    let mut row = vec![0.0; 3 * ROWS];
    linear::forward(
        dev,
        linear::Forward {
            out: view_mut(&mut row),
            x: view(&dout[..6 * WIDTH]),
            weight: view(&dout),
            bias: None,
            shape: few,
        },
    )
    .unwrap();
    let m = matmul::Shape { m: WIDTH, k: ROWS, n: WIDTH };
    let (mut out, mut da, mut dbm) =
        (vec![0.0; WIDTH * WIDTH], vec![0.0; ROWS * WIDTH], vec![0.0; ROWS * WIDTH]);
    matmul::forward(
        dev,
        matmul::Forward { out: view_mut(&mut out), a: view(&x), b: view(&dx), shape: m },
    )
    .unwrap();
    let slope = &w[..WIDTH * WIDTH];
    matmul::backward(
        dev,
        matmul::Backward {
            da: view_mut(&mut da),
            db: view_mut(&mut dbm),
            dout: view(slope),
            a: view(&x),
            b: view(&dx),
            shape: m,
        },
    )
    .unwrap();
    let ids: Vec<u32> = (0..ROWS as u32).map(|i| i % 50).collect();
    let e = embedding::Shape { rows: ROWS, d_model: WIDTH, vocab_size: 50 };
    let (mut gathered, mut de) = (vec![0.0; ROWS * WIDTH], vec![0.0; 50 * WIDTH]);
    let args = embedding::Forward {
        out: view_mut(&mut gathered),
        ids: &ids,
        weight: view(&w[..50 * WIDTH]),
        shape: e,
    };
    embedding::forward(dev, args).unwrap();
    let (dweight, dout) = (view_mut(&mut de), view(&dx));
    embedding::backward(dev, embedding::Backward { dweight, dout, ids: &ids, shape: e }).unwrap();
    [y, dx, dw, db, row, out, da, dbm, gathered, de].concat()
}

fn layers(dev: &Device) -> Vec<f32> {
    let (x, dout, g) = (random(1, 2 * ROWS * WIDTH), random(2, ROWS * WIDTH), random(3, WIDTH));
    let (one, other) = x.split_at(ROWS * WIDTH);
    let n = rms_norm::Shape { rows: ROWS, width: WIDTH, eps: 1e-5 };
    let (mut out, mut sum, mut rstd) =
        (vec![0.0; ROWS * WIDTH], vec![0.0; ROWS * WIDTH], vec![0.0; ROWS]);
    rms_norm::forward_residual(
        dev,
        rms_norm::ForwardResidual {
            out: view_mut(&mut out),
            sum: view_mut(&mut sum),
            rstd: view_mut(&mut rstd),
            x: view(one),
            residual: view(other),
            weight: view(&g),
            shape: n,
        },
    )
    .unwrap();
    let (mut dx, mut dg) = (other.to_vec(), vec![0.0; WIDTH]);
    rms_norm::backward_residual(
        dev,
        rms_norm::BackwardResidual {
            dx: view_mut(&mut dx),
            rounded: None,
            normed: None,
            dweight: view_mut(&mut dg),
            dout: view(&dout),
            x: view(&sum),
            weight: view(&g),
            rstd: view(&rstd),
            shape: n,
        },
    )
    .unwrap();
    let s = swiglu::Shape { rows: ROWS, width: WIDTH };
    let (mut gated, mut dgate) = (vec![0.0; ROWS * WIDTH], vec![0.0; 2 * ROWS * WIDTH]);
    swiglu::forward(
        dev,
        swiglu::Forward { out: view_mut(&mut gated), gate_up: view(&x), shape: s },
    )
    .unwrap();
    swiglu::backward(
        dev,
        swiglu::Backward {
            dgate_up: view_mut(&mut dgate),
            dout: view(&dout),
            gate_up: view(&x),
            shape: s,
        },
    )
    .unwrap();
    let (mut smooth, mut dsmooth) = (vec![0.0; 2 * ROWS * WIDTH], vec![0.0; 2 * ROWS * WIDTH]);
    silu::forward(dev, silu::Forward { out: view_mut(&mut smooth), x: view(&x) }).unwrap();
    silu::backward(
        dev,
        silu::Backward { dx: view_mut(&mut dsmooth), dout: view(&dgate), x: view(&x) },
    )
    .unwrap();
    let (heads, head_size) = (4, 32);
    let r = rope::Shape {
        rows: ROWS,
        row_width: WIDTH,
        heads,
        head_size,
        positions: ROWS,
        first_position: 0,
    };
    let (cos, sin) = rope::tables(ROWS, head_size, 10_000.0);
    let mut rotated = dout.clone();
    rope::forward(
        dev,
        rope::Forward { x: view_mut(&mut rotated), cos: view(&cos), sin: view(&sin), shape: r },
    )
    .unwrap();
    [out, sum, rstd, dx, dg, gated, dgate, smooth, dsmooth, rotated].concat()
}

#[test]
fn results_are_the_same_bits_for_any_number_of_threads() {
    let bits = |values: Vec<f32>| values.into_iter().map(f32::to_bits).collect::<Vec<_>>();
    for isa in Isa::available() {
        let alone = device(isa, 1);
        let (one_dense, one_layers) = (bits(dense(&alone)), bits(layers(&alone)));
        for threads in [2, 3, 8] {
            let dev = device(isa, threads);
            assert!(bits(dense(&dev)) == one_dense, "dense ops, {isa:?}, {threads} threads");
            assert!(bits(layers(&dev)) == one_layers, "ops of layers, {isa:?}, {threads} threads");
        }
    }
}
