//! Tests of every kernel of the machine, and of the emulated AMX, against sums in f64 of the
//! rounded operands.

use super::*;
use crate::buffer::In;
use crate::cpu::MatmulBackend;
use crate::random::{Purpose, uniform};
use crate::simd::{Isa, bf16};

fn random(len: usize, major: u64) -> Vec<f32> {
    (0..len).map(|i| (2.0 * uniform(3, Purpose::Benchmark, major, i as u32) - 1.0) as f32).collect()
}

/// Rounds as the kernel does.
fn rounded(kernel: MatmulKernel, value: f32) -> f64 {
    if kernel.dtype() == Dtype::F32 {
        f64::from(value)
    } else {
        f64::from(bf16::widen(bf16::round(value)))
    }
}

fn cpu(kernel: MatmulKernel, threads: usize) -> Cpu {
    Cpu::new(threads, Isa::detect(), MatmulBackend::Packed(kernel))
}

const SIZES: [(usize, usize, usize); 11] = [
    (1, 1, 1),
    (3, 5, 7),
    (14, 32, 32),
    (15, 33, 31),
    (33, 17, 65),
    (64, 385, 70),
    (100, 800, 33),
    (700, 40, 50),
    (31, 1000, 100),
    // Blocks of b along k, and along n; a is shared.
    (3, 5000, 2000),
    (3, 600, 3500),
];

#[test]
fn products_match_sums_in_f64_in_all_layouts() {
    // Tiles at the edge: every height, and parts of each vector of columns.
    let edges = (1..=14).flat_map(|m| [1, 15, 16, 17, 31].map(|n| (m, 9, n)));
    for (m, k, n) in SIZES.into_iter().chain(edges) {
        let (a, b, start) = (random(m * k, 1), random(k * n, 2), random(m * n, 3));
        let transpose = |x: &[f32], rows: usize, columns: usize| -> Vec<f32> {
            (0..x.len()).map(|i| x[i % rows * columns + i / rows]).collect()
        };
        let (a_transposed, b_transposed) = (transpose(&a, m, k), transpose(&b, k, n));
        for kernel in MatmulKernel::available() {
            let rounded = |value| rounded(kernel, value);
            let expected: Vec<f64> = (0..m * n)
                .map(|i| {
                    (0..k).map(|p| rounded(a[i / n * k + p]) * rounded(b[p * n + i % n])).sum()
                })
                .collect();
            let cpu = cpu(kernel, 2);
            for (transpose_a, transpose_b, accumulate) in [
                (false, false, false),
                (false, true, true),
                (true, false, true),
                (true, true, false),
            ] {
                let left = if transpose_a {
                    Operand::new(In::Cpu(&a_transposed), k, m).transposed()
                } else {
                    Operand::new(In::Cpu(&a), m, k)
                };
                let right = if transpose_b {
                    Operand::new(In::Cpu(&b_transposed), n, k).transposed()
                } else {
                    Operand::new(In::Cpu(&b), k, n)
                };
                let mut out = start.clone();
                let out_view = Out::Cpu(&mut out);
                product(&cpu, kernel, Product { out: out_view, a: left, b: right, accumulate });
                for (index, (out, expected)) in out.iter().zip(&expected).enumerate() {
                    let expected =
                        expected + if accumulate { f64::from(start[index]) } else { 0.0 };
                    let error = (f64::from(*out) - expected).abs();
                    assert!(
                        error < 1e-5 * (k as f64).sqrt().max(1.0),
                        "{kernel:?} {m} {k} {n}: {out} {expected}"
                    );
                }
            }
        }
    }
}

#[test]
fn bf16_operands_and_outputs_equal_those_rounded_from_f32() {
    for (m, k, n) in SIZES.into_iter().chain([(250, 70, 1000)]) {
        let (a, b) = (random(m * k, 1), random(k * n, 2));
        let to_bf16 = |values: &[f32]| -> Vec<u16> {
            values.iter().map(|value| bf16::round(*value)).collect()
        };
        let (bf16_a, bf16_b) = (to_bf16(&a), to_bf16(&b));
        for kernel in
            MatmulKernel::available().into_iter().filter(|kernel| kernel.dtype() == Dtype::Bf16)
        {
            let cpu = cpu(kernel, 2);
            let mut wide = vec![7.0; m * n];
            let (left, right) = (Operand::new(In::Cpu(&a), m, k), Operand::new(In::Cpu(&b), k, n));
            let out = Out::Cpu(&mut wide);
            product(&cpu, kernel, Product { out, a: left, b: right, accumulate: false });
            let mut rounded = vec![9; m * n];
            let (left, right) = (
                Operand::new(In::CpuBf16(&bf16_a), m, k),
                Operand::new(In::CpuBf16(&bf16_b), k, n),
            );
            let out = Out::CpuBf16(&mut rounded);
            product(&cpu, kernel, Product { out, a: left, b: right, accumulate: false });
            // An f32 output may take several blocks of k, whose sums are added in another order.
            let ulps = u16::from(k * n > MAX_BLOCK_WORDS);
            let is_close = |(a, b): (&u16, &u16)| a.abs_diff(*b) <= ulps;
            let all_close = rounded.iter().zip(&to_bf16(&wide)).all(is_close);
            assert!(all_close, "{kernel:?} {m} {k} {n}");
        }
    }
}

#[test]
fn results_are_the_same_bits_for_any_number_of_threads() {
    // Large enough that the tasks differ by the number of threads.
    let (m, k, n) = (700, 500, 330);
    let (a, b) = (random(m * k, 1), random(k * n, 2));
    for kernel in MatmulKernel::available() {
        let run = |threads| {
            let mut out = vec![0.5; m * n];
            let (a, b) = (Operand::new(In::Cpu(&a), m, k), Operand::new(In::Cpu(&b), k, n));
            let args = Product { out: Out::Cpu(&mut out), a, b, accumulate: true };
            product(&cpu(kernel, threads), kernel, args);
            out
        };
        let alone = run(1);
        assert!([2, 3, 8].into_iter().all(|threads| run(threads) == alone), "{kernel:?}");
    }
}

#[test]
fn empty_products_are_allowed() {
    for kernel in MatmulKernel::available() {
        let cpu = cpu(kernel, 1);
        let matrix = |elements, height, width| Operand::new(In::Cpu(elements), height, width);
        let (a, b) = (matrix(&[], 0, 3), matrix(&[0.0; 6], 3, 2));
        let out = Out::Cpu(&mut []);
        product(&cpu, kernel, Product { out, a, b, accumulate: false });
        let mut out = [7.0; 4];
        let (a, b) = (matrix(&[], 2, 0), matrix(&[], 0, 2));
        product(&cpu, kernel, Product { out: Out::Cpu(&mut out), a, b, accumulate: false });
        assert!(out == [0.0; 4]);
    }
}
