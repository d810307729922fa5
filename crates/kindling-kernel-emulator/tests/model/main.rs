//! The whole engine on a CUDA device, emulated on the CPU (or on a GPU: src/gpu.rs): losses, every
//! gradient, decoding and training against the CPU engine, and the products that are queued.

mod training;

use std::sync::Arc;

use kindling_core::bench::{LinearBenchmark, LinearPass, time_linear};
use kindling_core::config::ModelConfig;
use kindling_core::cuda::{Arithmetic, Cuda, Driver};
use kindling_core::decode::{Generator, GeneratorOptions, SamplingOptions};
use kindling_core::device::Device;
use kindling_core::dtype::Dtype;
use kindling_core::model::{NamedTensor, Transformer};
use kindling_core::ops::linear;
use kindling_core::ops::rope::Scaling;
use kindling_core::random::{Purpose, uniform};
use kindling_kernel_emulator::{EmulatedDevice, Order};

/// Largest difference relative to a tensor's largest value, in f32.
const TOLERANCE: f64 = 1e-4;
/// The same where every result on the way is rounded to bf16 (2^-9 each, some twenty in a row).
const BF16_TOLERANCE: f64 = 4e-2;
const PLENTY: u64 = 1 << 30;

fn config() -> ModelConfig {
    ModelConfig {
        vocab_size: 37,
        d_model: 24,
        num_heads: 4,
        num_kv_heads: 4,
        d_ff: 20,
        num_layers: 2,
        max_seq_length: 11,
        theta: 10_000.0,
        ..ModelConfig::PLAIN
    }
}

/// Shapes that differ in what the engine lays out in memory.
fn shapes() -> Vec<ModelConfig> {
    let grouped = ModelConfig { num_kv_heads: 2, tie_embeddings: true, qkv_bias: true, ..config() };
    let odd = ModelConfig {
        vocab_size: 31,
        d_model: 14,
        num_heads: 1,
        num_kv_heads: 1,
        d_ff: 9,
        ..config()
    };
    let normed_heads = ModelConfig {
        num_kv_heads: 2,
        head_size: Some(10),
        qk_norm: true,
        norm_eps: 1e-3,
        rope_scaling: Some(Scaling {
            factor: 8.0,
            low_freq_factor: 1.0,
            high_freq_factor: 4.0,
            original_max_position_embeddings: 64.0,
        }),
        ..config()
    };
    vec![config(), grouped, odd, normed_heads]
}

fn emulated(driver: &Arc<EmulatedDevice>, dtype: Dtype) -> Device {
    let driver: Arc<dyn Driver> = Arc::<EmulatedDevice>::clone(driver);
    Device::Cuda(Arc::new(Cuda::new(driver, Arithmetic { dtype, tf32: false }, 1)))
}

/// Returns the emulated device, or the GPU if the tests are to run on one.
fn device(dtype: Dtype) -> Device {
    if kindling_kernel_emulator::gpu_is_asked_for() {
        return Device::from_name("cuda", 1, dtype, false).unwrap();
    }
    emulated(&Arc::new(EmulatedDevice::new(PLENTY, Order::Forward)), dtype)
}

/// Returns ids and targets. One target in seven is ignored.
fn batch(config: &ModelConfig, rows: usize, seed: u64) -> (Vec<u32>, Vec<i32>) {
    let id = |i: usize, major| {
        (uniform(seed, Purpose::Benchmark, major, i as u32) * config.vocab_size as f64) as u32
    };
    let x = (0..rows).map(|i| id(i, 0)).collect();
    let targets = (0..rows).map(|i| if i % 7 == 3 { -100 } else { id(i, 1) as i32 }).collect();
    (x, targets)
}

/// Returns both models with random weights, gains and biases instead of initial ones.
fn pair(config: &ModelConfig, on: Device) -> (Transformer, Transformer) {
    let mut cpu = Transformer::new(config.clone(), Device::cpu(1), 7).unwrap();
    let mut state = cpu.state_dict().unwrap();
    for (major, tensor) in state.iter_mut().enumerate() {
        for (i, value) in tensor.data.iter_mut().enumerate() {
            *value += 0.2 * (uniform(3, Purpose::Benchmark, major as u64, i as u32) as f32 - 0.5);
        }
    }
    cpu.load_state_dict(&state).unwrap();
    let mut gpu = Transformer::new(config.clone(), on, 7).unwrap();
    gpu.load_state_dict(&state).unwrap();
    (cpu, gpu)
}

#[track_caller]
fn assert_close(what: &str, actual: &[NamedTensor], expected: &[NamedTensor], tolerance: f64) {
    assert_eq!(actual.len(), expected.len());
    for (a, e) in actual.iter().zip(expected) {
        assert_eq!((&a.name, &a.shape), (&e.name, &e.shape));
        // The gradient of a key's bias is the small remainder of large terms that cancel, so it is
        // compared at the scale of the queries' gradient.
        let like = e.name.replace("k_proj.bias", "q_proj.bias");
        let scale = expected.iter().find(|t| t.name == like).unwrap();
        let largest = scale.data.iter().fold(1e-12f64, |m, v| m.max(f64::from(v.abs())));
        let difference = a.data.iter().zip(&e.data).fold(0.0f64, |m, (a, e)| {
            let d = f64::from(a - e).abs();
            if d.is_nan() { f64::INFINITY } else { m.max(d) }
        });
        assert!(difference / largest < tolerance, "{what} {}: {}", a.name, difference / largest);
    }
}

#[test]
#[cfg_attr(no_cpp_compiler, ignore = "no C++ compiler")]
fn losses_and_gradients_match_the_cpu() {
    for config in shapes() {
        for (dtype, tolerance) in [(Dtype::F32, TOLERANCE), (Dtype::Bf16, BF16_TOLERANCE)] {
            for recompute in [false, true] {
                let (mut cpu, mut gpu) = pair(&config, device(dtype));
                gpu.set_recompute(recompute);
                let (x, targets) = batch(&config, 3 * 9, 1);
                // Twice, since gradients add up.
                for (batch, positions, scale) in [(3, 9, 1.0), (1, 11, 0.5)] {
                    let rows = batch * positions;
                    let expected = cpu
                        .forward_backward(&x[..rows], &targets[..rows], batch, positions, scale)
                        .unwrap();
                    let actual = gpu
                        .forward_backward(&x[..rows], &targets[..rows], batch, positions, scale)
                        .unwrap();
                    assert_eq!(actual.count, expected.count);
                    assert!(
                        (actual.mean() / expected.mean() - 1.0).abs() < tolerance / 2.0,
                        "{actual:?} {expected:?}"
                    );
                }
                let (actual, expected) = (gpu.gradients().unwrap(), cpu.gradients().unwrap());
                assert_close(&format!("{dtype:?}"), &actual, &expected, tolerance);
                let expected = cpu.loss(&x, &targets, 3, 9).unwrap();
                let actual = gpu.loss(&x, &targets, 3, 9).unwrap();
                assert!((actual.sum / expected.sum - 1.0).abs() < tolerance / 2.0);
            }
        }
    }
}

#[test]
#[cfg_attr(no_cpp_compiler, ignore = "no C++ compiler")]
fn a_device_without_room_computes_again_what_others_keep() {
    let (x, targets) = batch(&config(), 3 * 9, 1);
    let gradients_on = |memory| {
        let driver = Arc::new(EmulatedDevice::new(memory, Order::Forward));
        let mut model = Transformer::new(config(), emulated(&driver, Dtype::Bf16), 7).unwrap();
        let losses = model.forward_backward(&x, &targets, 3, 9, 1.0).unwrap();
        (losses, model.gradients().unwrap(), driver.bytes_in_use())
    };
    let (losses, gradients, with_room) = gradients_on(PLENTY);
    // The prediction counts an optimizer's moments. There are none here, which leaves room for the
    // pass itself.
    let (again, gradients_again, without) = gradients_on(with_room);
    assert!(losses == again && gradients == gradients_again, "the same bits");
    // bf16: one (n, f) for each block but one, and its gradient.
    let row = 2 * config().d_ff as u64;
    assert_eq!(with_room - without, 2 * 27 * row);
}

#[test]
#[cfg_attr(no_cpp_compiler, ignore = "no C++ compiler")]
fn a_benchmark_of_a_product_queues_ten_runs_between_two_waits() {
    let driver = Arc::new(EmulatedDevice::new(PLENTY, Order::Forward));
    let device = emulated(&driver, Dtype::Bf16);
    let shape = linear::Shape { rows: 3, inputs: 5, outputs: 7 };
    let pass = LinearPass::BackwardWeight;
    let benchmark = LinearBenchmark { pass, shape, dtype: Dtype::Bf16, warmup: 1, repeats: 25 };
    let seconds = time_linear(&device, benchmark).unwrap();
    assert!(seconds.len() == 25 && seconds.iter().all(|seconds| *seconds > 0.0));
    let work = driver.take_work();
    // Ten, ten and five runs.
    assert_eq!((work.products.len(), work.waits), (26, 6));
}

#[test]
#[cfg_attr(no_cpp_compiler, ignore = "no C++ compiler")]
fn rows_of_logits_are_aligned_and_products_leave_the_padding_alone() {
    for (vocab_size, pitch) in [(37, 64), (64, 64), (65, 128)] {
        let config = ModelConfig { vocab_size, num_layers: 1, ..config() };
        let driver = Arc::new(EmulatedDevice::new(PLENTY, Order::Forward));
        let mut model =
            Transformer::new(config.clone(), emulated(&driver, Dtype::Bf16), 7).unwrap();
        let (x, targets) = batch(&config, 16, 1);
        model.accumulate(&x, &targets, 2, 8, 1.0).unwrap();
        let products = driver.take_work().products;
        let c = config.d_model;
        let forward = products.iter().find(|p| (p.m, p.k, p.n) == (16, c, vocab_size)).unwrap();
        assert_eq!((forward.out_leading, forward.out % 128), (pitch, 0));
        let dx = products.iter().find(|p| (p.m, p.k, p.n) == (16, vocab_size, c)).unwrap();
        assert_eq!((dx.a.leading, dx.out_leading), (pitch, c));
        let dweight = products.iter().find(|p| (p.m, p.k, p.n) == (vocab_size, 16, c)).unwrap();
        assert_eq!((dweight.a.leading, dweight.out_leading), (pitch, c));
    }
}

#[test]
#[cfg_attr(no_cpp_compiler, ignore = "no C++ compiler")]
fn logits_and_decoded_tokens_match_the_cpu() {
    for config in shapes() {
        let (mut cpu, mut gpu) = pair(&config, device(Dtype::F32));
        let (ids, _) = batch(&config, 9, 5);
        let (expected, actual) = (cpu.logits(&ids).unwrap(), gpu.logits(&ids).unwrap());
        let largest = expected.iter().fold(0.0f32, |m, v| m.max(v.abs()));
        assert!(actual.iter().zip(&expected).all(|(a, e)| (a - e).abs() < 1e-4 * largest));
        // Prompts of different lengths, decoded beyond the context, where the cache slides or
        // rolls.
        for rolling_cache in [false, true] {
            let options = GeneratorOptions {
                max_tokens: 9,
                sampling: SamplingOptions {
                    temperature: 0.0,
                    top_k: None,
                    top_p: 1.0,
                    repetition_penalty: 1.0,
                },
                seed: 0,
                stop: Vec::new(),
                rolling_cache,
                limit_vocab: None,
            };
            let prompts = vec![ids[..3].to_vec(), ids[..7].to_vec()];
            let decode = |model: &mut Transformer| {
                let mut generator = Generator::new(model, &prompts, options.clone()).unwrap();
                while generator.next(model).unwrap().is_some() {}
                (0..2).map(|row| generator.tokens(row).to_vec()).collect::<Vec<_>>()
            };
            assert_eq!(decode(&mut gpu), decode(&mut cpu));
        }
    }
}

#[test]
#[cfg_attr(no_cpp_compiler, ignore = "no C++ compiler")]
fn running_out_of_memory_reports_the_request_and_what_to_reduce() {
    let driver = Arc::new(EmulatedDevice::new(400_000, Order::Forward));
    let mut model = Transformer::new(config(), emulated(&driver, Dtype::F32), 7).unwrap();
    let (x, targets) = batch(&config(), 400 * 11, 1);
    let error = model.forward_backward(&x, &targets, 400, 11, 1.0).unwrap_err();
    assert_eq!(error.code(), "ERR_OUT_OF_MEMORY");
    let text = error.to_string();
    assert!(text.contains("device memory") && text.contains("lower batch_size"), "{text}");
    // A smaller batch still works.
    model.forward_backward(&x[..22], &targets[..22], 2, 11, 1.0).unwrap();
    drop(model);
    assert_eq!(driver.bytes_in_use(), 0, "all memory is given back");
}

#[test]
#[cfg_attr(no_cpp_compiler, ignore = "no C++ compiler")]
fn unsupported_head_sizes_are_rejected() {
    let config = ModelConfig { d_model: 132, num_heads: 1, num_kv_heads: 1, ..config() };
    let mut model = Transformer::new(config, device(Dtype::F32), 7).unwrap();
    assert_eq!(model.loss(&[1, 2], &[2, 3], 1, 2).unwrap_err().code(), "ERR_UNSUPPORTED");
}
