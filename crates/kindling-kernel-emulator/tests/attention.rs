//! Attention's kernels against the reference, finite differences and the CPU implementation, which
//! `op_parity_attention.rs` of kindling-core compares with candle's autograd. Finite differences
//! check a few elements, the CPU implementation all of them.

mod common;

use common::{
    Activation, TOLERANCE, assert_close, assert_slopes, in_every_order, launch, memory, random,
    slopes, wide,
};
use kindling_core::buffer::{In, Out};
use kindling_core::device::Device;
use kindling_core::dtype::Dtype;
use kindling_core::ops::attention::{self, Rotation, Shape, cuda, reference};
use kindling_core::ops::rope;
use kindling_kernel_emulator::{Bf16, Element, Memory, Order, runs_hopper_kernels};

/// Probabilities and their gradients are rounded to bf16 before they are multiplied, a relative
/// error of 2^-9 each.
const BF16_GRADIENT_TOLERANCE: f64 = 1.2e-2;

fn shape(
    batch: usize,
    positions: usize,
    num_heads: usize,
    num_kv_heads: usize,
    head_size: usize,
) -> Shape {
    Shape { batch, positions, num_heads, num_kv_heads, head_size }
}

/// Returns the tables (cos, sin) of the rotation of queries and keys, which are empty without one.
fn tables(rotated: bool, s: Shape) -> (Vec<f32>, Vec<f32>) {
    if rotated { rope::tables(s.positions, s.head_size, 100.0) } else { Default::default() }
}

/// Returns dqkv and lse as the CPU computes them.
fn cpu_gradient(qkv: &[f32], dout: &[f32], rotated: bool, s: Shape) -> (Vec<f64>, Vec<f64>) {
    let dev = Device::cpu(1);
    let rows = s.batch * s.positions;
    let (mut out, mut lse) = (vec![0.0; rows * s.out_width()], vec![0.0; rows * s.num_heads]);
    let mut dqkv = vec![0.0; qkv.len()];
    let (cos, sin) = tables(rotated, s);
    attention::forward(
        &dev,
        attention::Forward {
            out: Out::from(&mut out[..]),
            lse: Out::from(&mut lse[..]),
            qkv: In::from(qkv),
            shape: s,
        },
    )
    .unwrap();
    attention::backward(
        &dev,
        attention::Backward {
            dqkv: Out::from(&mut dqkv[..]),
            dout: In::from(dout),
            qkv: In::from(qkv),
            out: In::from(&out[..]),
            lse: In::from(&lse[..]),
            rotation: rotated
                .then(|| Rotation { cos: In::from(&cos[..]), sin: In::from(&sin[..]) }),
            shape: s,
        },
    )
    .unwrap();
    (wide(&dqkv), wide(&lse))
}

/// Returns out, lse and dqkv of the kernels, and in bf16 dqkv of the backward pass in two kernels.
fn pass<T: Activation>(
    qkv: &[T],
    dout: &[T],
    (s, offset): (Shape, usize),
    rotated: bool,
    order: Order,
) -> Vec<Vec<f32>> {
    let (rows, n) = (s.batch * s.positions, qkv.len());
    let (cos, sin) = tables(rotated, s);
    let (cos, sin) = (memory(&cos, 0), memory(&sin, 1));
    let table = |table: &Memory<f32>| if rotated { table.address() } else { 0 };
    let (qkv, dout) = (memory(qkv, offset), memory(dout, 0));
    let (out, dqkv) =
        (Memory::<T>::poisoned(rows * s.out_width(), 0), Memory::<T>::poisoned(n, offset));
    let dq = Memory::<f32>::poisoned(cuda::dq_len(T::DTYPE, s, false), 0);
    let turns = Memory::of(&vec![0i32; cuda::turns_len(T::DTYPE, s, false)]);
    let [lse, delta] = [(); 2].map(|()| Memory::<f32>::poisoned(rows * s.num_heads, 0));
    let forward = cuda::Forward { out: out.address(), lse: lse.address(), qkv: qkv.address() };
    launch(&cuda::forward(T::DTYPE, forward, s, false), order);
    let backward = cuda::Backward {
        dqkv: dqkv.address(),
        delta: delta.address(),
        dq: dq.address(),
        turns: turns.address(),
        dout: dout.address(),
        qkv: qkv.address(),
        out: out.address(),
        lse: lse.address(),
        cos: table(&cos),
        sin: table(&sin),
    };
    for one in &cuda::backward(T::DTYPE, backward, s, false) {
        launch(one, order);
    }
    assert!(turns.values().iter().all(|turn| *turn == 0), "all turns begin anew");
    let mut results = vec![out.to_f32(), lse.to_f32(), dqkv.to_f32()];
    if T::DTYPE == Dtype::Bf16 {
        let separate = Memory::<T>::poisoned(n, offset);
        let backward = cuda::Backward { dqkv: separate.address(), ..backward };
        for one in &cuda::backward_in_two(T::DTYPE, backward, s) {
            launch(one, order);
        }
        results.push(separate.to_f32());
    }
    results
}

fn holds<T: Activation>(shapes: &[(Shape, usize)], gradient_tolerance: f64) {
    for &(s, offset) in shapes {
        let rows = s.batch * s.positions;
        let (qkv, dout) =
            (random::<T>(1, rows * s.qkv_width(), 2.0), random::<T>(2, rows * s.out_width(), 1.0));
        let results = in_every_order(|order| pass(&qkv, &dout, (s, offset), false, order));
        let what = format!("{s:?}");
        let exact = reference::forward(&wide(&qkv), s);
        assert_close(&format!("out, {what}"), &results[0], &exact, T::TOLERANCE);
        let as_f32 = |x: &[T]| x.iter().map(|v| v.to_f32()).collect::<Vec<_>>();
        let (dqkv, lse) = cpu_gradient(&as_f32(&qkv), &as_f32(&dout), false, s);
        assert_close(&format!("lse, {what}"), &results[1], &lse, TOLERANCE);
        for result in &results[2..] {
            assert_close(&format!("dqkv, {what}"), result, &dqkv, gradient_tolerance);
        }
        if s.head_size % 2 == 0 {
            let results = pass(&qkv, &dout, (s, offset), true, Order::Reverse);
            let (rotated, _) = cpu_gradient(&as_f32(&qkv), &as_f32(&dout), true, s);
            for result in &results[2..] {
                assert_close(&format!("rotated, {what}"), result, &rotated, gradient_tolerance);
            }
        }
        if rows * rows * s.out_width() < 300_000 {
            let slopes = slopes(&wide(&qkv), &wide(&dout), |x| reference::forward(x, s));
            assert_slopes("dqkv", &results[2], &slopes, gradient_tolerance);
        }
    }
}

#[test]
#[cfg_attr(no_cpp_compiler, ignore = "no C++ compiler")]
fn f32_attention_matches_the_reference_finite_differences_and_the_cpu() {
    let shapes = [
        (shape(1, 1, 1, 1, 2), 0),
        (shape(2, 7, 3, 3, 6), 0),
        (shape(1, 33, 4, 2, 8), 1),
        (shape(2, 40, 6, 1, 32), 0),
        (shape(1, 65, 2, 2, 64), 0),
        (shape(1, 70, 2, 1, 80), 0),
        (shape(1, 35, 1, 1, 128), 0),
        (shape(1, 100, 2, 1, 17), 0),
    ];
    holds::<f32>(&shapes, 4.0 * TOLERANCE);
}

#[test]
#[cfg_attr(no_cpp_compiler, ignore = "no C++ compiler")]
fn bf16_attention_matches_the_reference_finite_differences_and_the_cpu() {
    let shapes = [
        (shape(1, 1, 1, 1, 2), 0),
        (shape(2, 7, 3, 3, 6), 0),
        (shape(1, 33, 4, 2, 8), 0),
        (shape(1, 33, 4, 2, 8), 3),
        (shape(2, 65, 4, 2, 32), 0),
        (shape(1, 130, 2, 1, 64), 0),
        (shape(1, 200, 1, 1, 31), 0),
        (shape(1, 129, 2, 2, 80), 0),
        (shape(1, 65, 3, 1, 128), 0),
        (shape(1, 66, 1, 1, 98), 0),
        // Three blocks of keys, two heads of a group.
        (shape(1, 270, 2, 1, 64), 0),
        (shape(1, 150, 2, 1, 128), 0),
    ];
    holds::<Bf16>(&shapes, BF16_GRADIENT_TOLERANCE);
}

/// Returns out, lse and dqkv of the kernels for Hopper.
fn hopper_pass(
    qkv: &[Bf16],
    dout: &[Bf16],
    s: Shape,
    rotated: bool,
    order: Order,
) -> Vec<Vec<f32>> {
    let rows = s.batch * s.positions;
    let (cos, sin) = tables(rotated, s);
    let (cos, sin) = (memory(&cos, 0), memory(&sin, 1));
    let table = |table: &Memory<f32>| if rotated { table.address() } else { 0 };
    let dqkv = Memory::<Bf16>::poisoned(qkv.len(), 0);
    let (qkv, dout) = (memory(qkv, 0), memory(dout, 0));
    let out = Memory::<Bf16>::poisoned(rows * s.out_width(), 0);
    let [lse, delta] = [(); 2].map(|()| Memory::<f32>::poisoned(rows * s.num_heads, 0));
    let forward = cuda::Forward { out: out.address(), lse: lse.address(), qkv: qkv.address() };
    let backward = cuda::Backward {
        dqkv: dqkv.address(),
        delta: delta.address(),
        dq: 0,
        turns: 0,
        dout: dout.address(),
        qkv: qkv.address(),
        out: out.address(),
        lse: lse.address(),
        cos: table(&cos),
        sin: table(&sin),
    };
    let mut launches = vec![cuda::forward(Dtype::Bf16, forward, s, true)];
    launches.extend(cuda::backward(Dtype::Bf16, backward, s, true));
    for one in &launches {
        assert!(one.kernel.contains("hopper"), "{}", one.kernel);
        launch(one, order);
    }
    vec![out.to_f32(), lse.to_f32(), dqkv.to_f32()]
}

#[test]
#[cfg_attr(no_cpp_compiler, ignore = "no C++ compiler")]
fn hopper_attention_matches_the_reference_and_the_cpu() {
    if !runs_hopper_kernels() {
        return;
    }
    // One tile, half a tile, and more tiles than stages.
    for (seed, s) in [
        (1, shape(1, 1, 1, 1, 64)),
        (2, shape(2, 64, 3, 1, 64)),
        (3, shape(1, 65, 4, 2, 64)),
        (4, shape(1, 130, 2, 1, 64)),
        (5, shape(1, 650, 1, 1, 64)),
        (1, shape(1, 1, 1, 1, 128)),
        (2, shape(2, 64, 3, 1, 128)),
        (3, shape(1, 65, 4, 2, 128)),
        (4, shape(1, 130, 2, 1, 128)),
        (5, shape(1, 193, 1, 1, 128)),
        (6, shape(1, 650, 1, 1, 128)),
    ] {
        let rows = s.batch * s.positions;
        let qkv = random::<Bf16>(seed, rows * s.qkv_width(), 3.0);
        let dout = random::<Bf16>(seed + 10, rows * s.out_width(), 1.0);
        let as_f32 = |x: &[Bf16]| x.iter().map(|v| v.to_f32()).collect::<Vec<_>>();
        for rotated in [false, true] {
            let results = in_every_order(|order| hopper_pass(&qkv, &dout, s, rotated, order));
            let exact = reference::forward(&wide(&qkv), s);
            assert_close(&format!("out, {s:?}"), &results[0], &exact, Bf16::TOLERANCE);
            let (dqkv, lse) = cpu_gradient(&as_f32(&qkv), &as_f32(&dout), rotated, s);
            assert_close(&format!("lse, {s:?}"), &results[1], &lse, TOLERANCE);
            let what = format!("dqkv, rotated: {rotated}, {s:?}");
            assert_close(&what, &results[2], &dqkv, BF16_GRADIENT_TOLERANCE);
        }
    }
}

/// Runs enough heads for blocks to take them in groups.
#[test]
#[cfg_attr(no_cpp_compiler, ignore = "no C++ compiler")]
fn hopper_attention_over_many_heads_matches_the_cpu() {
    if !runs_hopper_kernels() {
        return;
    }
    let s = shape(1, 193, 97, 97, 128);
    let qkv = random::<Bf16>(1, 193 * s.qkv_width(), 3.0);
    let dout = random::<Bf16>(2, 193 * s.out_width(), 1.0);
    let as_f32 = |x: &[Bf16]| x.iter().map(|v| v.to_f32()).collect::<Vec<_>>();
    let results = hopper_pass(&qkv, &dout, s, false, Order::Forward);
    let (dqkv, lse) = cpu_gradient(&as_f32(&qkv), &as_f32(&dout), false, s);
    assert_close("lse", &results[1], &lse, TOLERANCE);
    assert_close("dqkv", &results[2], &dqkv, BF16_GRADIENT_TOLERANCE);
}

#[test]
#[cfg_attr(no_cpp_compiler, ignore = "no C++ compiler")]
fn hopper_attention_is_for_aligned_heads_of_64_and_128_in_bf16() {
    let kernels = |dtype, qkv, s, hopper| {
        let forward = cuda::forward(dtype, cuda::Forward { out: 0, lse: 0, qkv }, s, hopper);
        let backward = cuda::Backward {
            dqkv: qkv,
            delta: 0,
            dq: 0,
            turns: 0,
            dout: 0,
            qkv,
            out: 0,
            lse: 0,
            cos: 0,
            sin: 0,
        };
        let backward = cuda::backward(dtype, backward, s, hopper);
        assert_eq!(cuda::dq_len(dtype, s, hopper) == 0, cuda::turns_len(dtype, s, hopper) == 0);
        let joint = backward.iter().any(|one| one.kernel.starts_with("attention_backward_bf16_"));
        assert_eq!(joint, cuda::dq_len(dtype, s, hopper) > 0, "scratch for those that need it");
        (forward.kernel, backward[backward.len() - 1].kernel)
    };
    let s = shape(1, 8, 1, 1, 64);
    let on_hopper = ("attention_forward_hopper_64", "attention_backward_kv_hopper_64");
    let plain = ("attention_forward_bf16_64", "attention_backward_bf16_64");
    let wide = ("attention_forward_hopper_128", "attention_backward_kv_hopper_128");
    assert_eq!(kernels(Dtype::Bf16, 16, shape(1, 8, 1, 1, 128), true), wide);
    let wide = ("attention_forward_bf16_128", "attention_backward_bf16_128");
    assert_eq!(kernels(Dtype::Bf16, 16, shape(1, 8, 1, 1, 128), false), wide);
    assert_eq!(kernels(Dtype::Bf16, 16, shape(1, 8, 1, 1, 120), true), wide);
    assert_eq!(kernels(Dtype::Bf16, 16, s, true), on_hopper);
    assert_eq!(kernels(Dtype::Bf16, 16, s, false), plain);
    assert_eq!(kernels(Dtype::Bf16, 16, shape(1, 8, 1, 1, 56), true), plain);
    assert_eq!(kernels(Dtype::Bf16, 2, s, true), (plain.0, "attention_backward_q_bf16_64"));
    let f32 = ("attention_forward_f32_64", "attention_backward_q_f32_64");
    assert_eq!(kernels(Dtype::F32, 16, s, true), f32);
}

#[test]
#[cfg_attr(no_cpp_compiler, ignore = "no C++ compiler")]
fn later_tokens_do_not_affect_earlier_ones() {
    let s = shape(1, 140, 2, 2, 16);
    let qkv = random::<Bf16>(1, 140 * s.qkv_width(), 2.0);
    let dout = random::<Bf16>(2, 140 * s.out_width(), 1.0);
    let before = pass(&qkv, &dout, (s, 0), false, Order::Forward);
    for position in [1, 15, 16, 63, 64, 65, 139] {
        let mut changed = qkv.clone();
        for x in &mut changed[position * s.qkv_width()..] {
            *x = Bf16::from_f32(50.0 - x.to_f32());
        }
        let after = pass(&changed, &dout, (s, 0), false, Order::Forward);
        let past = position * s.out_width();
        assert!(after[0][..past] == before[0][..past] && after[0][past..] != before[0][past..]);
    }
}

#[test]
#[cfg_attr(no_cpp_compiler, ignore = "no C++ compiler")]
fn later_tokens_do_not_affect_earlier_ones_on_hopper() {
    if !runs_hopper_kernels() {
        return;
    }
    for head_size in [64, 128] {
        let s = shape(1, 260, 1, 1, head_size);
        let qkv = random::<Bf16>(1, 260 * s.qkv_width(), 2.0);
        let dout = random::<Bf16>(2, 260 * s.out_width(), 1.0);
        let before = hopper_pass(&qkv, &dout, s, false, Order::Forward);
        for position in [1, 63, 64, 127, 128, 259] {
            let mut changed = qkv.clone();
            for x in &mut changed[position * s.qkv_width()..] {
                *x = Bf16::from_f32(50.0 - x.to_f32());
            }
            let after = hopper_pass(&changed, &dout, s, false, Order::Forward);
            let past = position * s.out_width();
            assert!(after[0][..past] == before[0][..past] && after[0][past..] != before[0][past..]);
        }
    }
}

fn decode_holds<T: Activation>() {
    for (s, length) in [
        (shape(1, 1, 1, 1, 2), 1),
        (shape(1, 7, 4, 2, 6), 7),
        (shape(1, 65, 6, 1, 32), 65),
        (shape(1, 30, 2, 2, 128), 30),
        (shape(1, 100, 3, 1, 80), 100),
    ] {
        let qkv = random::<T>(1, length * s.qkv_width(), 2.0);
        let expected = reference::forward(&wide(&qkv), s);
        let kv = s.num_kv_heads * s.head_size;
        let part = |at: usize| {
            qkv.chunks(s.qkv_width()).flat_map(|row| row[at..at + kv].to_vec()).collect::<Vec<_>>()
        };
        let q = &qkv[(length - 1) * s.qkv_width()..][..s.out_width()];
        let results = in_every_order(|order| {
            let (q, keys) = (memory(q, 0), memory(&part(s.out_width()), 0));
            let (values, out) =
                (memory(&part(s.out_width() + kv), 1), Memory::<T>::poisoned(s.out_width(), 0));
            let decode = cuda::Decode {
                out: out.address(),
                q: q.address(),
                keys: keys.address(),
                values: values.address(),
            };
            launch(&cuda::decode(T::DTYPE, decode, length, s), order);
            vec![out.to_f32()]
        });
        assert_close("out", &results[0], &expected[(length - 1) * s.out_width()..], T::TOLERANCE);
    }
}

#[test]
#[cfg_attr(no_cpp_compiler, ignore = "no C++ compiler")]
fn decoding_one_query_equals_the_last_row_of_the_reference() {
    decode_holds::<f32>();
    decode_holds::<Bf16>();
}
