//! Anomaly detection on the CPU and on an emulated CUDA device: numbers are planted in the weights
//! of one layer, and the pass must name the right op.

use std::sync::Arc;

use kindling_core::config::ModelConfig;
use kindling_core::cuda::{Arithmetic, Cuda, Driver};
use kindling_core::device::Device;
use kindling_core::dtype::Dtype;
use kindling_core::model::{NamedTensor, Transformer};
use kindling_kernel_emulator::{EmulatedDevice, Order};

const IDS: [u32; 10] = [3, 1, 4, 1, 5, 9, 2, 6, 5, 3];
const TARGETS: [i32; 10] = [1, 4, 1, 5, 9, 2, 6, 5, 3, 5];
const LOSS_SCALE: f32 = 1.0;

fn config() -> ModelConfig {
    ModelConfig {
        vocab_size: 11,
        d_model: 16,
        num_heads: 2,
        num_kv_heads: 2,
        d_ff: 12,
        num_layers: 3,
        max_seq_length: 5,
        theta: 10_000.0,
        ..ModelConfig::PLAIN
    }
}

fn emulated(dtype: Dtype) -> Device {
    let driver: Arc<dyn Driver> = Arc::new(EmulatedDevice::new(1 << 30, Order::Forward));
    Device::Cuda(Arc::new(Cuda::new(driver, Arithmetic { dtype, tf32: false }, 1)))
}

/// Returns a model for every kind of pass: on the CPU, with recomputation, and on the emulated
/// device in both dtypes.
fn models(config: &ModelConfig) -> Vec<Transformer> {
    let model = |device| Transformer::new(config.clone(), device, 7).unwrap();
    let mut recomputing = model(Device::cpu(1));
    recomputing.set_recompute(true);
    let gpus = [Dtype::F32, Dtype::Bf16].map(|dtype| model(emulated(dtype)));
    [model(Device::cpu(1)), recomputing].into_iter().chain(gpus).collect()
}

/// A change to the tensor of this name.
type Plant<'a> = (&'a str, &'a dyn Fn(&mut NamedTensor));

/// Plants numbers in the weights of each model and expects a pass to stop at `op`, whether or not
/// it returns its losses. Without detection the pass goes on.
#[track_caller]
fn expect(op: &str, plants: &[Plant], scale: f32) {
    for mut model in models(&config()) {
        let mut state = model.state_dict().unwrap();
        for (name, change) in plants {
            change(state.iter_mut().find(|tensor| tensor.name == *name).unwrap());
        }
        model.load_state_dict(&state).unwrap();
        model.forward_backward(&IDS, &TARGETS, 2, 5, scale).unwrap();
        assert_eq!(model.non_finite_op(), None);

        model.zero_gradients().unwrap();
        model.set_detect_anomaly(true);
        let error = model.forward_backward(&IDS, &TARGETS, 2, 5, scale).unwrap_err();
        assert_eq!(model.non_finite_op(), Some(op), "{error}");
        assert_eq!(error.code(), "ERR_NON_FINITE");
        assert!(error.to_string().starts_with(&format!("{op} is not finite (")), "{error}");

        model.zero_gradients().unwrap();
        let error = model.accumulate(&IDS, &TARGETS, 2, 5, scale).unwrap_err();
        assert!(error.to_string().starts_with(op), "{error}");
    }
}

fn fill(value: f32) -> impl Fn(&mut NamedTensor) {
    move |tensor| tensor.data.fill(value)
}

/// Sets every second value in row `at` of a matrix as files store it, [in, out]: what input `at` is
/// multiplied by. Not all of them, since gradients of logits add up to 0.
fn fill_input(at: usize, value: f32) -> impl Fn(&mut NamedTensor) {
    move |tensor| {
        let width = tensor.shape[1];
        let row = &mut tensor.data[at * width..][..width];
        row.iter_mut().step_by(2).for_each(|weight| *weight = value);
    }
}

/// Sets column `at` of a matrix as files store it: what output `at` is made of.
fn fill_output(at: usize, value: f32) -> impl Fn(&mut NamedTensor) {
    move |tensor| {
        let width = tensor.shape[1];
        tensor.data.iter_mut().skip(at).step_by(width).for_each(|weight| *weight = value);
    }
}

#[test]
fn a_nan_in_any_weight_names_the_op_that_reads_it() {
    let nan: &dyn Fn(&mut NamedTensor) = &|tensor| tensor.data[5] = f32::NAN;
    for (weight, op) in [
        ("token_embedding.embedding_matrix", "token_embedding output"),
        ("transformer_blocks.1.RMSNorm_Attn.g", "transformer_blocks.1.RMSNorm_Attn output"),
        (
            "transformer_blocks.1.Multihead_Attn.k_proj.linear_matrix",
            "transformer_blocks.1.Multihead_Attn qkv_proj output",
        ),
        (
            "transformer_blocks.2.Multihead_Attn.o_proj.linear_matrix",
            "transformer_blocks.2.Multihead_Attn o_proj output",
        ),
        ("transformer_blocks.0.RMSNorm_FF.g", "transformer_blocks.0.RMSNorm_FF output"),
        (
            "transformer_blocks.1.Feed_Forward.linear_w3.linear_matrix",
            "transformer_blocks.1.Feed_Forward linear_w1, linear_w3 output",
        ),
        (
            "transformer_blocks.2.Feed_Forward.linear_w2.linear_matrix",
            "transformer_blocks.2.Feed_Forward linear_w2 output",
        ),
        ("final_norm.g", "final_norm output"),
        ("final_layer.linear_matrix", "final_layer gradient of its input"),
    ] {
        // The first row of the embedding belongs to a token that the batch lacks.
        let nan = if weight.starts_with("token") { &fill(f32::NAN) } else { nan };
        expect(op, &[(weight, nan)], LOSS_SCALE);
    }
}

#[test]
fn an_overflow_in_the_forward_pass_names_the_op() {
    let large = fill(1e20);
    let [w1, w3] =
        ["w1", "w3"].map(|w| format!("transformer_blocks.1.Feed_Forward.linear_{w}.linear_matrix"));
    let silu = "transformer_blocks.1.Feed_Forward silu output";
    expect(silu, &[(&w1, &large), (&w3, &large)], LOSS_SCALE);
    let [q, k] =
        ["q", "k"].map(|p| format!("transformer_blocks.2.Multihead_Attn.{p}_proj.linear_matrix"));
    let attention = "transformer_blocks.2.Multihead_Attn attention output";
    expect(attention, &[(&q, &large), (&k, &large)], LOSS_SCALE);
}

#[test]
fn an_overflow_in_the_backward_pass_names_the_op() {
    // Weights that multiply zeros leave the forward pass as it is; their gradients overflow.
    let (scale, large) = (1e34, 1e8);
    let zero_output = fill_output(3, 0.0);
    let large_input = fill_input(3, large);
    let feed_forward = |w| format!("transformer_blocks.1.Feed_Forward.linear_{w}.linear_matrix");
    expect(
        "transformer_blocks.1.Feed_Forward linear_w2 gradient of its input",
        &[(&feed_forward("w3"), &zero_output), (&feed_forward("w2"), &large_input)],
        scale,
    );
    let attention = |p| format!("transformer_blocks.0.Multihead_Attn.{p}_proj.linear_matrix");
    expect(
        "transformer_blocks.0.Multihead_Attn o_proj gradient of its input",
        &[(&attention("v"), &zero_output), (&attention("o"), &large_input)],
        scale,
    );
    let output = "final_layer.linear_matrix";
    expect(
        "final_layer gradient of its input",
        &[("final_norm.g", &|gain| gain.data[3] = 0.0), (output, &large_input)],
        scale,
    );
    // The gradient of a weight that is zero, from an input that is large.
    expect(
        "final_layer.linear_matrix gradient",
        &[("final_norm.g", &fill(large)), (output, &fill(0.0))],
        scale,
    );
}

#[test]
fn detection_changes_no_result_of_a_pass_without_anomalies() {
    let normed = ModelConfig { qk_norm: true, qkv_bias: true, num_kv_heads: 1, ..config() };
    let tied = ModelConfig { tie_embeddings: true, ..config() };
    for config in [config(), normed, tied] {
        let pass = |model: &mut Transformer| {
            let losses = model.forward_backward(&IDS, &TARGETS, 2, 5, LOSS_SCALE).unwrap();
            let logits = model.logits(&IDS[..5]).unwrap();
            let gradients = model.gradients().unwrap().into_iter().flat_map(|tensor| tensor.data);
            (losses.sum.to_bits(), logits, gradients.map(f32::to_bits).collect::<Vec<_>>())
        };
        for (mut on, mut off) in models(&config).into_iter().zip(models(&config)) {
            on.set_detect_anomaly(true);
            assert!(pass(&mut on) == pass(&mut off), "{} {config:?}", on.device().name());
        }
    }
}
