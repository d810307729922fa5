//! Cross-entropy, and the output layer fused with it, against plain f64 loops with finite
//! differences and against candle's autograd.

mod common;

use std::sync::Arc;

use candle_core::{D, Tensor};
use common::*;
use kindling_core::Result;
use kindling_core::cpu::{Cpu, MatmulBackend, MatmulKernel};
use kindling_core::device::Device;
use kindling_core::dtype::Dtype;
use kindling_core::ops::cross_entropy::{self, LossSum};
use kindling_core::ops::{IGNORED_TARGET, output_loss};
use kindling_core::simd::Isa;

fn candle_loss(logits: &Tensor, targets: &[i32]) -> Tensor {
    let largest = logits.max_keepdim(D::Minus1).unwrap().detach();
    let shifted = logits.broadcast_sub(&largest).unwrap();
    let log = shifted
        .broadcast_sub(&shifted.exp().unwrap().sum_keepdim(D::Minus1).unwrap().log().unwrap())
        .unwrap();
    let columns = logits.dims()[1];
    let count = targets.iter().filter(|t| **t != IGNORED_TARGET).count().max(1) as f64;
    let mut pick = vec![0.0f64; targets.len() * columns];
    for (row, target) in targets.iter().enumerate() {
        if *target != IGNORED_TARGET {
            pick[row * columns + *target as usize] = -1.0 / count;
        }
    }
    (log * Tensor::from_vec(pick, (targets.len(), columns), &candle_core::Device::Cpu).unwrap())
        .unwrap()
        .sum_all()
        .unwrap()
}

fn targets(rows: usize, vocab: usize) -> Vec<i32> {
    (0..rows).map(|i| if i % 5 == 3 { IGNORED_TARGET } else { (i * 7 % vocab) as i32 }).collect()
}

fn forward(
    dev: &Device,
    lse: &mut [f32],
    logits: &[f32],
    targets: &[i32],
    shape: cross_entropy::Shape,
) -> Result<LossSum> {
    let args = cross_entropy::Forward { lse: view_mut(lse), logits: view(logits), targets, shape };
    cross_entropy::forward(dev, args)
}

#[test]
fn logits_100_to_1000_with_target_1_have_loss_1001() {
    let logits = [100.0, -1.0, 1.0, 5.0, 2.0, 1000.0];
    let s = cross_entropy::Shape { rows: 1, vocab_size: 6 };
    for dev in devices() {
        let loss = forward(&dev, &mut [0.0], &logits, &[1], s).unwrap();
        assert_eq!(loss.mean(), 1001.0);
    }
}

#[test]
fn cross_entropy_matches_the_reference_and_candle() {
    for (rows, vocab_size) in [(1, 1), (7, 31), (33, 65), (100, 7), (11, 1000)] {
        let s = cross_entropy::Shape { rows, vocab_size };
        let logits: Vec<f32> = random(1, rows * vocab_size).iter().map(|v| v * 9.0).collect();
        let targets = targets(rows, vocab_size);
        let count = targets.iter().filter(|t| **t != IGNORED_TARGET).count();
        let candle_logits = variable(&logits, &[rows, vocab_size]);
        let loss = candle_loss(&candle_logits, &targets);
        let oracle = values(loss.backward().unwrap().get(&candle_logits).unwrap());
        let slopes = (rows * vocab_size < 300).then(|| {
            finite_differences(&wide(&logits), &[1.0], |x| {
                vec![cross_entropy::reference::forward(x, &targets, s)]
            })
        });
        let expected = cross_entropy::reference::forward(&wide(&logits), &targets, s);
        for dev in devices() {
            let mut lse = vec![9.0; rows];
            let sum = forward(&dev, &mut lse, &logits, &targets, s).unwrap();
            assert_eq!(sum.count, count);
            assert_close("loss", &[sum.mean() as f32], &[expected]);
            let scale = 1.0 / count as f32;
            let mut dlogits = vec![9.0; rows * vocab_size];
            let args = cross_entropy::Backward {
                dlogits: view_mut(&mut dlogits),
                logits: view(&logits),
                lse: view(&lse),
                targets: &targets,
                scale,
                shape: s,
            };
            cross_entropy::backward(&dev, args).unwrap();
            let mut fused = logits.clone();
            let args = cross_entropy::ForwardBackward {
                logits: view_mut(&mut fused),
                targets: &targets,
                scale,
                shape: s,
            };
            assert_eq!(cross_entropy::forward_backward(&dev, args).unwrap(), sum);
            if vocab_size > 1 {
                assert_close("dlogits", &dlogits, &oracle);
                assert_close("fused dlogits", &fused, &oracle);
                if let Some(slopes) = &slopes {
                    assert_close("dlogits", &dlogits, slopes);
                }
            }
        }
    }
}

/// The inputs of an output layer, and the gradients to be computed.
struct OutputLayer {
    x: Vec<f32>,
    weight: Vec<f32>,
    targets: Vec<i32>,
    dx: Vec<f32>,
    dweight: Vec<f32>,
    shape: output_loss::Shape,
}

impl OutputLayer {
    fn new(shape: output_loss::Shape, dweight: Vec<f32>) -> Self {
        let output_loss::Shape { rows, d_model, vocab_size } = shape;
        Self {
            x: random(1, rows * d_model),
            weight: random(2, vocab_size * d_model),
            targets: targets(rows, vocab_size),
            dx: vec![9.0; rows * d_model],
            dweight,
            shape,
        }
    }

    fn forward_backward(
        &mut self,
        dev: &Device,
        scale: f32,
        scratch: &mut output_loss::Scratch,
    ) -> LossSum {
        let args = output_loss::ForwardBackward {
            dx: view_mut(&mut self.dx),
            dweight: view_mut(&mut self.dweight),
            x: view(&self.x),
            weight: view(&self.weight),
            targets: &self.targets,
            scale,
            shape: self.shape,
        };
        output_loss::forward_backward(dev, args, scratch).unwrap()
    }
}

#[test]
fn the_fused_output_layer_matches_candle() {
    for (rows, d_model, vocab_size) in [(1, 2, 3), (33, 7, 31), (700, 5, 9000), (130, 33, 65)] {
        let s = output_loss::Shape { rows, d_model, vocab_size };
        for dev in devices() {
            let mut scratch = output_loss::Scratch::default();
            let mut layer = OutputLayer::new(s, vec![0.0; vocab_size * d_model]);
            let x = variable(&layer.x, &[rows, d_model]);
            let weight = variable(&layer.weight, &[vocab_size, d_model]);
            let loss = candle_loss(&x.matmul(&weight.t().unwrap()).unwrap(), &layer.targets);
            let gradients = loss.backward().unwrap();
            let sum = layer.forward_backward(&dev, 1.0, &mut scratch);
            assert_close("loss", &[sum.mean() as f32], &values(&loss));
            assert_close("dx", &layer.dx, &values(gradients.get(&x).unwrap()));
            assert_close("dweight", &layer.dweight, &values(gradients.get(&weight).unwrap()));
            let args = output_loss::Forward {
                x: view(&layer.x),
                weight: view(&layer.weight),
                targets: &layer.targets,
                shape: s,
            };
            let forward = output_loss::forward(&dev, args, &mut scratch).unwrap();
            assert_eq!(forward.count, sum.count);
            assert!((forward.mean() - sum.mean()).abs() < 1e-6);
        }
    }
}

#[test]
fn in_bf16_the_fused_output_layer_differs_from_candle_by_rounding_only() {
    let kernels = MatmulKernel::available().into_iter().filter(|k| k.dtype() == Dtype::Bf16);
    for kernel in kernels {
        // The last one takes two blocks of rows.
        for (rows, d_model, vocab_size) in [(1, 2, 3), (33, 7, 31), (130, 64, 650), (2050, 33, 65)]
        {
            let cpu = Cpu::new(2, Isa::detect(), MatmulBackend::Packed(kernel));
            let dev = Device::Cpu(Arc::new(cpu));
            let shape = output_loss::Shape { rows, d_model, vocab_size };
            let mut layer = OutputLayer::new(shape, vec![0.0; vocab_size * d_model]);
            let x = variable(&layer.x, &[rows, d_model]);
            let weight = variable(&layer.weight, &[vocab_size, d_model]);
            let loss = candle_loss(&x.matmul(&weight.t().unwrap()).unwrap(), &layer.targets);
            let gradients = loss.backward().unwrap();
            let mut scratch = output_loss::Scratch::default();
            let sum = layer.forward_backward(&dev, 1.0, &mut scratch);
            let error = (sum.mean() - values(&loss)[0]).abs();
            assert!(error < 0.01, "{kernel:?} {rows} {vocab_size}: loss {error}");
            let expected = [gradients.get(&x).unwrap(), gradients.get(&weight).unwrap()];
            for (gradient, expected) in [&layer.dx, &layer.dweight].into_iter().zip(expected) {
                let error = relative_error(gradient, &values(expected));
                assert!(error < 0.02, "{kernel:?} {rows} {vocab_size}: gradient {error}");
            }
            let args = output_loss::Forward {
                x: view(&layer.x),
                weight: view(&layer.weight),
                targets: &layer.targets,
                shape,
            };
            assert_eq!(output_loss::forward(&dev, args, &mut scratch).unwrap(), sum);
        }
    }
}

#[test]
fn a_batch_of_ignored_rows_has_no_loss_and_no_gradient() {
    let s = output_loss::Shape { rows: 3, d_model: 2, vocab_size: 5 };
    let mut layer = OutputLayer::new(s, vec![0.0; 10]);
    layer.targets.fill(IGNORED_TARGET);
    let sum = layer.forward_backward(&devices()[0], 1.0, &mut output_loss::Scratch::default());
    assert_eq!((sum.count, sum.mean()), (0, 0.0));
    assert!(layer.dx.iter().chain(&layer.dweight).all(|v| *v == 0.0));
}

#[test]
fn a_target_outside_the_vocabulary_is_refused_before_anything_is_written() {
    let s = cross_entropy::Shape { rows: 2, vocab_size: 3 };
    for target in [3, -1] {
        let mut lse = [7.0; 2];
        let error = forward(&devices()[0], &mut lse, &[0.0; 6], &[0, target], s).unwrap_err();
        assert_eq!(error.code(), "ERR_TOKEN_OUT_OF_RANGE");
        assert!(lse.iter().all(|x| *x == 7.0));
    }
}

#[test]
fn a_nan_logit_makes_the_loss_nan() {
    let s = cross_entropy::Shape { rows: 1, vocab_size: 40 };
    let mut logits = [0.5; 40];
    logits[17] = f32::NAN;
    for dev in devices() {
        assert!(forward(&dev, &mut [0.0], &logits, &[3], s).unwrap().mean().is_nan());
    }
}

#[test]
fn the_fused_output_layer_is_bitwise_equal_for_any_number_of_threads() {
    let s = output_loss::Shape { rows: 211, d_model: 33, vocab_size: 1001 };
    let run = |matmul, threads| {
        let dev = Device::Cpu(Arc::new(Cpu::new(threads, Isa::detect(), matmul)));
        let mut layer = OutputLayer::new(s, random(3, s.vocab_size * s.d_model));
        let sum = layer.forward_backward(&dev, 0.5, &mut output_loss::Scratch::default());
        let gradients = [layer.dx, layer.dweight].concat();
        (sum.sum.to_bits(), gradients.iter().map(|v| v.to_bits()).collect::<Vec<_>>())
    };
    let kernels = MatmulKernel::available().into_iter().map(MatmulBackend::Packed);
    for matmul in kernels.chain([MatmulBackend::Gemm]) {
        let one = run(matmul, 1);
        assert!([2, 3, 8].into_iter().all(|threads| run(matmul, threads) == one), "{matmul:?}");
    }
}
