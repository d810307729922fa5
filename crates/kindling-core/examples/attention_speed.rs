//! Measures attention on one thread, next to the peak of fused multiply-adds on the same core.
//!
//! Calls are shorter than a time slice, and the fastest of many counts, so the figures hold on a
//! busy machine too. Operands are in the caches. FLOPs count the causal half of the scores.
//!
//! Usage: `cargo run --release -p kindling-core --example attention_speed [name filter]`

#![allow(clippy::print_stdout, reason = "its output is the table")]

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kindling_core::buffer::{In, Out};
use kindling_core::cpu::{Cpu, MatmulBackend, MatmulKernel};
use kindling_core::device::Device;
use kindling_core::ops::attention::{self, Shape};
use kindling_core::simd::Isa;

const TIME: Duration = Duration::from_millis(600);
/// Matrix products of the size of q k^T in the forward and the backward pass.
const PRODUCTS: [f64; 2] = [2.0, 5.0];

fn shape(positions: usize, num_heads: usize, num_kv_heads: usize, head_size: usize) -> Shape {
    Shape { batch: 1, positions, num_heads, num_kv_heads, head_size }
}

/// Returns the seconds of the fastest of many calls.
fn shortest(mut call: impl FnMut()) -> f64 {
    let (started, mut best) = (Instant::now(), f64::INFINITY);
    while started.elapsed() < TIME {
        let start = Instant::now();
        call();
        best = best.min(start.elapsed().as_secs_f64());
    }
    best
}

/// Returns the GFLOP/s of the forward and the backward pass.
fn speed(dev: &Device, s: Shape) -> [f64; 2] {
    let number = |i: usize| ((i * 2_654_435_761) % 1000) as f32 / 500.0 - 1.0;
    let qkv: Vec<f32> = (0..s.positions * s.qkv_width()).map(number).collect();
    let dout: Vec<f32> = (0..s.positions * s.out_width()).map(|i| number(i + 7)).collect();
    let (mut out, mut lse) = (vec![0.0; dout.len()], vec![0.0; s.positions * s.num_heads]);
    let forward = shortest(|| {
        let (out, lse) = (Out::from(&mut out[..]), Out::from(&mut lse[..]));
        let args = attention::Forward { out, lse, qkv: In::from(&qkv[..]), shape: s };
        attention::forward(dev, args).expect("valid shapes");
    });
    let mut gradients = qkv.clone();
    let backward = shortest(|| {
        gradients.copy_from_slice(&qkv);
        let args = attention::BackwardInPlace {
            qkv: Out::from(&mut gradients[..]),
            dout: In::from(&dout[..]),
            out: In::from(&out[..]),
            lse: In::from(&lse[..]),
            shape: s,
        };
        attention::backward_in_place(dev, args).expect("valid shapes");
    });
    let product = (s.num_heads * s.positions * s.positions * s.head_size) as f64;
    [PRODUCTS[0] * product / forward / 1e9, PRODUCTS[1] * product / backward / 1e9]
}

/// Returns the GFLOP/s of independent fused multiply-adds in registers.
#[cfg(target_arch = "x86_64")]
fn peak(isa: Isa) -> f64 {
    use std::arch::x86_64::{_mm256_fmadd_ps, _mm256_set1_ps, _mm512_fmadd_ps, _mm512_set1_ps};
    const STEPS: usize = 20_000;
    const CHAINS: usize = 12;
    #[target_feature(enable = "avx512f")]
    fn avx512() -> f32 {
        let (a, b) = (_mm512_set1_ps(0.999), _mm512_set1_ps(black_box(0.001)));
        let mut sums = [a; CHAINS];
        for _ in 0..STEPS {
            for sum in &mut sums {
                *sum = _mm512_fmadd_ps(*sum, a, b);
            }
        }
        black_box(sums);
        (CHAINS * STEPS * 32) as f32
    }
    #[target_feature(enable = "avx2,fma")]
    fn avx2() -> f32 {
        let (a, b) = (_mm256_set1_ps(0.999), _mm256_set1_ps(black_box(0.001)));
        let mut sums = [a; CHAINS];
        for _ in 0..STEPS {
            for sum in &mut sums {
                *sum = _mm256_fmadd_ps(*sum, a, b);
            }
        }
        black_box(sums);
        (CHAINS * STEPS * 16) as f32
    }
    let mut operations = 0.0;
    let is_widest = isa.name() == "avx512";
    let seconds = shortest(|| {
        // SAFETY: an `Isa` exists only on a machine that has its features, and `main` skips
        // `scalar`.
        operations = unsafe { if is_widest { avx512() } else { avx2() } };
    });
    f64::from(operations) / seconds / 1e9
}

#[cfg(not(target_arch = "x86_64"))]
fn peak(_isa: Isa) -> f64 {
    0.0
}

fn main() {
    let filter = std::env::args().nth(1).unwrap_or_default();
    let bf16 = MatmulKernel::detect_bf16().map(MatmulBackend::Packed);
    let modes = Isa::available()
        .into_iter()
        .map(|isa| (isa.name(), isa, Some(MatmulBackend::Gemm)))
        .chain([("bf16", *Isa::available().last().expect("scalar at least"), bf16)]);
    println!("| mode | t, nh, nkv, hs | forward | backward | FMA peak |");
    println!("|---|---|---|---|---|");
    for (name, isa, backend) in modes {
        let Some(backend) = backend.filter(|_| name != "scalar") else { continue };
        let dev = Device::Cpu(Arc::new(Cpu::new(1, isa, backend)));
        for s in [
            shape(64, 4, 4, 32),
            shape(256, 4, 4, 32),
            shape(256, 2, 2, 64),
            shape(1024, 1, 1, 64),
            shape(1024, 1, 1, 128),
            shape(256, 4, 1, 80),
        ] {
            let Shape { positions, num_heads, num_kv_heads, head_size, .. } = s;
            let sizes = format!("{positions}, {num_heads}, {num_kv_heads}, {head_size}");
            if format!("{name} {sizes}").contains(&filter) {
                let ([forward, backward], peak) = (speed(&dev, s), peak(isa));
                println!("| {name} | {sizes} | {forward:.0} | {backward:.0} | {peak:.0} |");
            }
        }
    }
}
