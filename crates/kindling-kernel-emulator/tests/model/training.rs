//! Training steps on the device against the CPU engine: updates, clipping, gradients that are not
//! finite, checkpoints, and the device operations of a step.

use std::sync::Arc;

use kindling_core::checkpoint;
use kindling_core::config::ModelConfig;
use kindling_core::dtype::Dtype;
use kindling_core::model::Transformer;
use kindling_core::optim::{AdamW, AdamWOptions, GroupOptions, Optimizer, Sgd, SgdOptions};
use kindling_kernel_emulator::{EmulatedDevice, Order};

use super::{PLENTY, TOLERANCE, assert_close, batch, config, device, emulated, pair};

fn optimizer(model: &Transformer, sgd: bool) -> Box<dyn Optimizer> {
    let gains = GroupOptions {
        pattern: "*.g".to_owned(),
        weight_decay: Some(0.0),
        ..GroupOptions::default()
    };
    if sgd {
        let options = SgdOptions { weight_decay: 0.1, constant: false, groups: vec![gains] };
        return Box::new(Sgd::new(model, &options).unwrap());
    }
    let options =
        AdamWOptions { betas: (0.9, 0.95), eps: 1e-8, weight_decay: 0.1, groups: vec![gains] };
    Box::new(AdamW::new(model, &options).unwrap())
}

#[test]
#[cfg_attr(no_cpp_compiler, ignore = "no C++ compiler")]
fn training_follows_the_cpu_with_and_without_reading_losses() {
    // AdamW turns gradients that are pure rounding noise into full steps. Hence small rates in
    // bf16, and no key bias.
    for (dtype, tolerance, rate) in [(Dtype::F32, 5e-4, 1e-2), (Dtype::Bf16, 0.05, 1e-3)] {
        let config = ModelConfig { num_kv_heads: 2, qkv_bias: dtype == Dtype::F32, ..config() };
        for (sgd, read) in [(false, true), (false, false), (true, false)] {
            let (mut cpu, mut gpu) = pair(&config, device(dtype));
            let (mut for_cpu, mut for_gpu) = (optimizer(&cpu, sgd), optimizer(&gpu, sgd));
            let (mut expected, mut actual) = (0.0, 0.0);
            for step in 0..4 {
                let (x, targets) = batch(&config, 2 * 8, step);
                let lr = rate / (step + 1) as f64;
                expected += cpu.forward_backward(&x, &targets, 2, 8, 1.0).unwrap().mean() / 4.0;
                let norm = for_cpu.clip_grad_norm(&mut cpu, 0.5).unwrap();
                for_cpu.step(&mut cpu, lr).unwrap();
                if read {
                    actual += gpu.forward_backward(&x, &targets, 2, 8, 1.0).unwrap().mean() / 4.0;
                    let on_gpu = for_gpu.clip_grad_norm(&mut gpu, 0.5).unwrap();
                    assert!((on_gpu / norm - 1.0).abs() < tolerance, "{on_gpu} {norm}");
                } else {
                    gpu.accumulate(&x, &targets, 2, 8, 1.0).unwrap();
                    for_gpu.queue_clip(&mut gpu, 0.5).unwrap();
                }
                for_gpu.step(&mut gpu, lr).unwrap();
            }
            if !read {
                actual = gpu.take_losses().unwrap().mean();
                assert_eq!(gpu.take_losses().unwrap().sum, 0.0);
            }
            assert!((actual / expected - 1.0).abs() < tolerance / 2.0, "{actual} {expected}");
            assert_close(
                "weight",
                &gpu.state_dict().unwrap(),
                &cpu.state_dict().unwrap(),
                tolerance,
            );
            assert!(gpu.gradients().unwrap().iter().all(|t| t.data.iter().all(|g| *g == 0.0)));
            let (of_gpu, of_cpu) = (for_gpu.state(&gpu).unwrap(), for_cpu.state(&cpu).unwrap());
            assert_close("moment", &of_gpu, &of_cpu, 3.0 * tolerance);
        }
    }
}

#[test]
#[cfg_attr(no_cpp_compiler, ignore = "no C++ compiler")]
fn a_step_that_reads_nothing_never_waits_for_the_device() {
    let driver = Arc::new(EmulatedDevice::new(PLENTY, Order::Forward));
    let mut model = Transformer::new(config(), emulated(&driver, Dtype::Bf16), 7).unwrap();
    let mut optimizer = optimizer(&model, false);
    let (x, targets) = batch(&config(), 16, 1);
    let mut step = || {
        model.accumulate(&x, &targets, 2, 8, 1.0).unwrap();
        optimizer.queue_clip(&mut model, 1.0).unwrap();
        optimizer.step(&mut model, 1e-3).unwrap();
    };
    step();
    let (before, used) = (driver.take_work(), driver.bytes_in_use());
    step();
    let work = driver.take_work();
    assert_eq!(work.waits, 0);
    assert_eq!(driver.bytes_in_use(), used, "a step allocates nothing");
    assert!(before.launches.len() >= work.launches.len() && work.launches.contains(&"adamw_step"));
    // Ids, targets, groups of ids, settings of the update.
    assert_eq!(work.uploads, 4);
    assert_eq!(work.products.len(), 3 * (4 * 2 + 1));
}

#[test]
#[cfg_attr(no_cpp_compiler, ignore = "no C++ compiler")]
fn clipping_is_visible_and_applied_once() {
    let (mut cpu, mut gpu) = pair(&config(), device(Dtype::F32));
    let (x, targets) = batch(&config(), 16, 1);
    let (mut for_cpu, mut for_gpu) = (optimizer(&cpu, true), optimizer(&gpu, true));
    for (model, optimizer) in [(&mut cpu, &mut for_cpu), (&mut gpu, &mut for_gpu)] {
        model.forward_backward(&x, &targets, 2, 8, 1.0).unwrap();
        optimizer.clip_grad_norm(model, 0.1).unwrap();
        assert!((optimizer.clip_grad_norm(model, 0.05).unwrap() - 0.1).abs() < 1e-5);
    }
    assert_close("clipped", &gpu.gradients().unwrap(), &cpu.gradients().unwrap(), TOLERANCE);
    for (model, optimizer) in [(&mut cpu, &mut for_cpu), (&mut gpu, &mut for_gpu)] {
        // More gradients are added to the clipped ones.
        model.forward_backward(&x, &targets, 2, 8, 1.0).unwrap();
        optimizer.step(model, 1.0).unwrap();
    }
    assert_close("weight", &gpu.state_dict().unwrap(), &cpu.state_dict().unwrap(), TOLERANCE);
}

#[test]
#[cfg_attr(no_cpp_compiler, ignore = "no C++ compiler")]
fn non_finite_gradients_change_nothing_and_surface_at_the_next_read() {
    let (_, mut gpu) = pair(&config(), device(Dtype::F32));
    let mut optimizer = optimizer(&gpu, false);
    let (x, targets) = batch(&config(), 16, 1);
    let before = gpu.state_dict().unwrap();
    gpu.accumulate(&x, &targets, 2, 8, f32::INFINITY).unwrap();
    assert_eq!(optimizer.clip_grad_norm(&mut gpu, 1.0).unwrap_err().code(), "ERR_NON_FINITE");
    for _ in 0..2 {
        optimizer.queue_clip(&mut gpu, 1.0).unwrap();
        optimizer.step(&mut gpu, 1e-2).unwrap();
        gpu.accumulate(&x, &targets, 2, 8, 1.0).unwrap();
    }
    assert_eq!(gpu.take_losses().unwrap_err().code(), "ERR_NON_FINITE");
    assert_eq!(gpu.forward_backward(&x, &targets, 2, 8, 1.0).unwrap_err().code(), "ERR_NON_FINITE");
    assert_eq!(gpu.state_dict().unwrap_err().code(), "ERR_NON_FINITE");
    gpu.zero_gradients().unwrap();
    assert!(gpu.state_dict().unwrap() == before);
    gpu.forward_backward(&x, &targets, 2, 8, 1.0).unwrap();
    optimizer.step(&mut gpu, 1e-2).unwrap();
    assert!(gpu.state_dict().unwrap() != before);
}

#[test]
#[cfg_attr(no_cpp_compiler, ignore = "no C++ compiler")]
fn weights_and_moments_move_between_devices_bit_for_bit() {
    for dtype in [Dtype::F32, Dtype::Bf16] {
        let (mut cpu, mut gpu) = pair(&config(), device(dtype));
        let mut for_gpu = optimizer(&gpu, false);
        let (x, targets) = batch(&config(), 16, 1);
        gpu.forward_backward(&x, &targets, 2, 8, 1.0).unwrap();
        for_gpu.step(&mut gpu, 1e-2).unwrap();
        let (weights, moments) = (gpu.state_dict().unwrap(), for_gpu.state(&gpu).unwrap());
        let path = std::env::temp_dir().join(format!("kindling-cuda-{}", std::process::id()));
        // Naming the type would take a dependency on serde_json.
        #[allow(clippy::default_trait_access)]
        checkpoint::save(&path, &gpu, Some(&*for_gpu), 1, ()).unwrap();
        let mut for_cpu = optimizer(&cpu, false);
        checkpoint::load(&path, &mut cpu, Some(&mut *for_cpu)).unwrap();
        assert!(cpu.state_dict().unwrap() == weights && for_cpu.state(&cpu).unwrap() == moments);
        let mut back = Transformer::new(config(), device(dtype), 0).unwrap();
        checkpoint::load(&path, &mut back, None).unwrap();
        std::fs::remove_dir_all(&path).unwrap();
        assert!(back.state_dict().unwrap() == weights);
        // Products read the new weights.
        let (same, other) =
            (gpu.loss(&x, &targets, 2, 8).unwrap(), back.loss(&x, &targets, 2, 8).unwrap());
        assert!(same == other);
    }
}
