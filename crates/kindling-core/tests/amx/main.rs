//! Tests of the AMX kernel with its real instructions. A processor with AMX runs them; on any
//! other, a SIGILL handler decodes and emulates them one by one. So the encodings, the tile
//! configuration, strides and packing are tested against f64 sums on any machine.
#![cfg(all(target_arch = "x86_64", target_os = "linux"))]

#[path = "../common/mod.rs"]
mod common;
mod instructions;
mod signal;
mod tiles;

use std::sync::Arc;

use common::attention::forward_backward;
use common::{assert_close, random, view, view_mut};
use kindling_core::buffer::{In, Out};
use kindling_core::cpu::{Cpu, MatmulBackend, MatmulKernel};
use kindling_core::device::Device;
use kindling_core::ops::attention::Shape;
use kindling_core::ops::linear;
use kindling_core::simd::Isa;

/// Returns whether the processor runs the instructions itself.
fn is_real() -> bool {
    named("amx").is_some()
}

fn named(name: &str) -> Option<MatmulKernel> {
    MatmulKernel::available().into_iter().find(|kernel| kernel.name() == name)
}

/// Returns the AMX kernel, after installing the emulation if the processor needs it.
fn amx() -> MatmulKernel {
    if !is_real() {
        signal::install();
    }
    // SAFETY: the processor has the instructions, or the handler emulates them.
    unsafe { MatmulKernel::amx_unchecked() }.expect("the instructions match the plain code")
}

fn device(kernel: MatmulKernel, threads: usize) -> Device {
    Device::Cpu(Arc::new(Cpu::new(threads, Isa::detect(), MatmulBackend::Packed(kernel))))
}

/// Returns y, dx and dweight of a linear layer; dweight is added to ones.
fn layer(
    kernel: MatmulKernel,
    threads: usize,
    s: linear::Shape,
    [x, w, dout]: [&[f32]; 3],
) -> [Vec<f32>; 3] {
    let dev = device(kernel, threads);
    let (mut y, mut dx) = (vec![7.0; s.rows * s.outputs], vec![7.0; s.rows * s.inputs]);
    let mut dw = vec![1.0; s.outputs * s.inputs];
    linear::forward(
        &dev,
        linear::Forward {
            out: view_mut(&mut y),
            x: view(x),
            weight: view(w),
            bias: None,
            shape: s,
        },
    )
    .unwrap();
    linear::backward_input(
        &dev,
        linear::BackwardInput {
            dx: view_mut(&mut dx),
            dout: view(dout),
            weight: view(w),
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
            dout: view(dout),
            x: view(x),
            shape: s,
        },
    )
    .unwrap();
    [y, dx, dw]
}

/// Like `layer`, but computed as f64 sums of unrounded operands.
fn sums(s: linear::Shape, [x, w, dout]: [&[f32]; 3]) -> [Vec<f64>; 3] {
    let linear::Shape { rows, inputs, outputs } = s;
    let sum = |len: usize, term: &dyn Fn(usize) -> (f32, f32)| -> f64 {
        (0..len).map(term).map(|(a, b)| f64::from(a) * f64::from(b)).sum()
    };
    let all = |height: usize, width: usize, element: &dyn Fn(usize, usize) -> f64| -> Vec<f64> {
        (0..height * width).map(|i| element(i / width, i % width)).collect()
    };
    [
        all(rows, outputs, &|r, o| sum(inputs, &|i| (x[r * inputs + i], w[o * inputs + i]))),
        all(rows, inputs, &|r, i| sum(outputs, &|o| (dout[r * outputs + o], w[o * inputs + i]))),
        all(outputs, inputs, &|o, i| {
            1.0 + sum(rows, &|r| (dout[r * outputs + o], x[r * inputs + i]))
        }),
    ]
}

/// Returns shapes with partial and whole tiles, odd depths, several runs along k and several tasks.
fn shapes() -> Vec<linear::Shape> {
    let mut sizes: Vec<_> = (1..=17).map(|rows| (rows, 2 * rows + 1, 40 - rows)).collect();
    sizes.extend([
        (32, 32, 32),
        (33, 31, 65),
        (64, 96, 64),
        (15, 1025, 30),
        (300, 70, 129),
        (65, 2100, 33),
        (600, 33, 65),
    ]);
    sizes
        .into_iter()
        .map(|(rows, inputs, outputs)| linear::Shape { rows, inputs, outputs })
        .collect()
}

#[test]
fn products_of_small_integers_are_exact() {
    let kernel = amx();
    let whole =
        |seed, len| -> Vec<f32> { random(seed, len).iter().map(|x| (4.0 * x).round()).collect() };
    for s in shapes() {
        let (x, w, dout) = (
            whole(1, s.rows * s.inputs),
            whole(2, s.outputs * s.inputs),
            whole(3, s.rows * s.outputs),
        );
        let operands = [&x[..], &w[..], &dout[..]];
        let expected =
            sums(s, operands).map(|values| values.iter().map(|v| *v as f32).collect::<Vec<_>>());
        assert!(layer(kernel, 2, s, operands) == expected, "{s:?}");
        if let Some(dot) = named("avx512bf16") {
            assert!(layer(dot, 2, s, operands) == expected, "avx512bf16: {s:?}");
        }
    }
}

#[test]
fn products_of_random_numbers_match_the_plain_code() {
    let kernel = amx();
    let plain = named("emulated").expect("plain code runs anywhere");
    for s in shapes() {
        let operands = [
            random(1, s.rows * s.inputs),
            random(2, s.outputs * s.inputs),
            random(3, s.rows * s.outputs),
        ];
        let operands = [&operands[0][..], &operands[1][..], &operands[2][..]];
        let found = layer(kernel, 3, s, operands);
        assert!(found == layer(kernel, 1, s, operands), "threads: {s:?}");
        let expected = layer(plain, 2, s, operands);
        if is_real() {
            // The processor may add in any order within an instruction.
            for (found, expected) in found.iter().zip(&expected) {
                common::assert_close("amx", found, &common::wide(expected));
            }
        } else {
            assert!(found == expected, "{s:?}");
        }
    }
}

#[test]
fn bf16_operands_and_outputs_match_f32_ones_to_the_rounding_of_the_output() {
    let kernel = amx();
    let s = linear::Shape { rows: 45, inputs: 77, outputs: 50 };
    let upper = |values: &[f32]| -> Vec<u16> {
        values.iter().map(|x| (x.to_bits() >> 16) as u16).collect()
    };
    let widened = |bits: &[u16]| -> Vec<f32> {
        bits.iter().map(|bits| f32::from_bits(u32::from(*bits) << 16)).collect()
    };
    let (x, w) = (upper(&random(1, s.rows * s.inputs)), random(2, s.outputs * s.inputs));
    let dev = device(kernel, 2);
    let (mut y_bf16, mut y) = (vec![0; s.rows * s.outputs], vec![0.0; s.rows * s.outputs]);
    linear::forward(
        &dev,
        linear::Forward {
            out: Out::CpuBf16(&mut y_bf16),
            x: In::CpuBf16(&x),
            weight: view(&w),
            bias: None,
            shape: s,
        },
    )
    .unwrap();
    linear::forward(
        &dev,
        linear::Forward {
            out: view_mut(&mut y),
            x: view(&widened(&x)),
            weight: view(&w),
            bias: None,
            shape: s,
        },
    )
    .unwrap();
    let furthest =
        widened(&y_bf16).iter().zip(&y).map(|(a, b)| ((a - b) / b).abs()).fold(0.0, f32::max);
    assert!(furthest <= 1.0 / 256.0, "{furthest}");
}

#[test]
fn every_instruction_runs_and_tiles_are_released_as_often_as_configured() {
    if is_real() {
        return;
    }
    let kernel = amx();
    let before = signal::counts();
    let s = linear::Shape { rows: 40, inputs: 40, outputs: 40 };
    let operands = [random(1, 1600), random(2, 1600), random(3, 1600)];
    // One thread, so that this thread runs everything and has the counts.
    layer(kernel, 1, s, [&operands[0], &operands[1], &operands[2]]);
    let after = signal::counts();
    let ran: Vec<usize> = after.iter().zip(before).map(|(after, before)| after - before).collect();
    assert!(ran.iter().all(|count| *count > 0), "{ran:?}");
    assert_eq!(ran[0], ran[1], "configured as often as released");
}

/// Attention does not share its loops with large products.
#[test]
fn attention_by_the_instructions_equals_attention_by_the_plain_code() {
    let s = Shape { batch: 1, positions: 70, num_heads: 2, num_kv_heads: 1, head_size: 40 };
    let (qkv, dout) = (random(1, 70 * s.qkv_width()), random(2, 70 * s.out_width()));
    let run = |kernel| forward_backward(&device(kernel, 2), &qkv, &dout, s);
    let emulated = named("emulated").expect("it is always available");
    for (actual, expected) in run(amx()).iter().zip(run(emulated)) {
        assert_close("attention", actual, &common::wide(&expected));
    }
}
