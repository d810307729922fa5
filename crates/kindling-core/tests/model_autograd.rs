//! Tests the model's logits, loss and gradients against candle's autograd of primitive ops in f64.

mod common;

use candle_core::{D, DType, Tensor, Var};
use common::*;
use kindling_core::config::ModelConfig;
use kindling_core::model::Transformer;
use kindling_core::ops::IGNORED_TARGET;

fn config() -> ModelConfig {
    ModelConfig {
        vocab_size: 37,
        d_model: 30,
        num_heads: 3,
        num_kv_heads: 3,
        d_ff: 53,
        num_layers: 2,
        max_seq_length: 11,
        theta: 10_000.0,
        ..ModelConfig::PLAIN
    }
}

/// The same model in candle's primitive ops, over variables named as in files.
struct Oracle {
    config: ModelConfig,
    variables: Vec<(String, Var)>,
}

impl Oracle {
    fn new(model: &Transformer) -> Self {
        let variables = model
            .state_dict()
            .unwrap()
            .into_iter()
            .map(|t| (t.name, variable(&t.data, &t.shape)))
            .collect();
        Self { config: model.config().clone(), variables }
    }

    fn get(&self, name: &str) -> &Tensor {
        self.variables.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_tensor()).expect(name)
    }

    fn norm(&self, x: &Tensor, gain: &str) -> Tensor {
        let mean = x.sqr().unwrap().mean_keepdim(D::Minus1).unwrap();
        let rstd = (mean + 1e-5f64).unwrap().sqrt().unwrap().recip().unwrap();
        x.broadcast_mul(&rstd).unwrap().broadcast_mul(self.get(gain)).unwrap()
    }

    fn linear(&self, x: &Tensor, name: &str) -> Tensor {
        x.matmul(self.get(&format!("{name}.linear_matrix"))).unwrap()
    }

    /// Rotates the pairs of adjacent elements of (b, h, t, hs).
    fn rope(&self, x: &Tensor) -> Tensor {
        let (b, h, t, hs) = x.dims4().unwrap();
        let angle = |i: usize| {
            (i / (hs / 2)) as f64 * self.config.theta.powf(-2.0 * (i % (hs / 2)) as f64 / hs as f64)
        };
        let table = |f: fn(f64) -> f64| {
            let values: Vec<f64> = (0..t * hs / 2).map(|i| f(angle(i))).collect();
            Tensor::from_vec(values, (t, hs / 2, 1), &candle_core::Device::Cpu).unwrap()
        };
        let (cos, sin) = (table(f64::cos), table(f64::sin));
        let pairs = x.reshape((b, h, t, hs / 2, 2)).unwrap();
        let (even, odd) = (pairs.narrow(4, 0, 1).unwrap(), pairs.narrow(4, 1, 1).unwrap());
        let times = |a: &Tensor, c: &Tensor| a.broadcast_mul(c).unwrap();
        let first = (times(&even, &cos) - times(&odd, &sin)).unwrap();
        let second = (times(&even, &sin) + times(&odd, &cos)).unwrap();
        Tensor::cat(&[first, second], 4).unwrap().reshape((b, h, t, hs)).unwrap()
    }

    fn heads(&self, x: &Tensor, name: &str, count: usize, b: usize, t: usize) -> Tensor {
        let mut projected = self.linear(x, &format!("{name}_proj"));
        if self.config.qkv_bias {
            projected = projected.broadcast_add(self.get(&format!("{name}_proj.bias"))).unwrap();
        }
        let hs = self.config.head_size();
        projected.reshape((b, t, count, hs)).unwrap().transpose(1, 2).unwrap().contiguous().unwrap()
    }

    fn attention(&self, x: &Tensor, prefix: &str, b: usize, t: usize) -> Tensor {
        let (nh, nkv, hs) =
            (self.config.num_heads, self.config.num_kv_heads, self.config.head_size());
        let q = self.rope(&self.heads(x, &format!("{prefix}.q"), nh, b, t));
        let k = self.rope(&self.heads(x, &format!("{prefix}.k"), nkv, b, t));
        let v = self.heads(x, &format!("{prefix}.v"), nkv, b, t);
        let repeat = |x: &Tensor| {
            let x = x
                .reshape((b, nkv, 1, t, hs))
                .unwrap()
                .broadcast_as((b, nkv, nh / nkv, t, hs))
                .unwrap();
            x.reshape((b, nh, t, hs)).unwrap()
        };
        let (k, v) = (repeat(&k), repeat(&v));
        let mask: Vec<f64> = (0..t * t).map(|i| if i % t > i / t { -1e30 } else { 0.0 }).collect();
        let mask = Tensor::from_vec(mask, (t, t), &candle_core::Device::Cpu).unwrap();
        let scores = (q.matmul(&k.transpose(2, 3).unwrap().contiguous().unwrap()).unwrap()
            / (hs as f64).sqrt())
        .unwrap();
        let scores = scores.broadcast_add(&mask).unwrap();
        let e = scores
            .broadcast_sub(&scores.max_keepdim(D::Minus1).unwrap().detach())
            .unwrap()
            .exp()
            .unwrap();
        let p = e.broadcast_div(&e.sum_keepdim(D::Minus1).unwrap()).unwrap();
        let out = p.matmul(&v).unwrap().transpose(1, 2).unwrap().contiguous().unwrap();
        self.linear(&out.reshape((b * t, nh * hs)).unwrap(), &format!("{prefix}.o_proj"))
    }

    fn logits(&self, x: &[u32], b: usize, t: usize) -> Tensor {
        let ids = Tensor::from_slice(x, b * t, &candle_core::Device::Cpu).unwrap();
        let mut h = self.get("token_embedding.embedding_matrix").index_select(&ids, 0).unwrap();
        for layer in 0..self.config.num_layers {
            let block = format!("transformer_blocks.{layer}");
            let normed = self.norm(&h, &format!("{block}.RMSNorm_Attn.g"));
            h = (h + self.attention(&normed, &format!("{block}.Multihead_Attn"), b, t)).unwrap();
            let normed = self.norm(&h, &format!("{block}.RMSNorm_FF.g"));
            let gate = self.linear(&normed, &format!("{block}.Feed_Forward.linear_w1"));
            let sigma = (gate.neg().unwrap().exp().unwrap() + 1.0).unwrap().recip().unwrap();
            let up = self.linear(&normed, &format!("{block}.Feed_Forward.linear_w3"));
            let hidden = gate.mul(&sigma).unwrap().mul(&up).unwrap();
            h = (h + self.linear(&hidden, &format!("{block}.Feed_Forward.linear_w2"))).unwrap();
        }
        let normed = self.norm(&h, "final_norm.g");
        if self.config.tie_embeddings {
            normed.matmul(&self.get("token_embedding.embedding_matrix").t().unwrap()).unwrap()
        } else {
            self.linear(&normed, "final_layer")
        }
    }
}

fn loss_of(logits: &Tensor, targets: &[i32]) -> Tensor {
    let shifted = logits.broadcast_sub(&logits.max_keepdim(D::Minus1).unwrap().detach()).unwrap();
    let log = shifted
        .broadcast_sub(&shifted.exp().unwrap().sum_keepdim(D::Minus1).unwrap().log().unwrap())
        .unwrap();
    let columns = logits.dims()[1];
    let count = targets.iter().filter(|t| **t != IGNORED_TARGET).count() as f64;
    let mut pick = vec![0.0f64; targets.len() * columns];
    for (row, target) in targets.iter().enumerate().filter(|(_, t)| **t != IGNORED_TARGET) {
        pick[row * columns + *target as usize] = -1.0 / count;
    }
    let pick = Tensor::from_vec(pick, (targets.len(), columns), &candle_core::Device::Cpu).unwrap();
    (log.to_dtype(DType::F64).unwrap() * pick).unwrap().sum_all().unwrap()
}

fn batch(config: &ModelConfig, b: usize, t: usize, ignore: bool) -> (Vec<u32>, Vec<i32>) {
    let x = (0..b * t).map(|i| ((i * i * 5 + 3 * i) % config.vocab_size) as u32).collect();
    let targets = (0..b * t)
        .map(|i| {
            if ignore && i % 4 == 1 {
                IGNORED_TARGET
            } else {
                ((i * 11 + 7) % config.vocab_size) as i32
            }
        })
        .collect();
    (x, targets)
}

fn compare(config: &ModelConfig, ignore: bool) {
    let (b, t) = (3, 9);
    for dev in devices() {
        let mut model = Transformer::new(config.clone(), dev, 3).unwrap();
        // Biases start at zero, which would hide an error.
        let mut state = model.state_dict().unwrap();
        for tensor in state.iter_mut().filter(|t| t.name.ends_with("bias")) {
            tensor.data = random_around(9, tensor.data.len(), 0.2, 0.5);
        }
        model.load_state_dict(&state).unwrap();
        let oracle = Oracle::new(&model);
        let (x, targets) = batch(config, b, t, ignore);
        let logits = oracle.logits(&x, b, t);
        let loss = loss_of(&logits, &targets);
        let gradients = loss.backward().unwrap();

        assert_close(
            "logits",
            &model.logits(&x[..t]).unwrap(),
            &values(&logits.narrow(0, 0, t).unwrap()),
        );
        let sum = model.forward_backward(&x, &targets, b, t, 1.0).unwrap();
        assert_close("loss", &[sum.mean() as f32], &values(&loss));
        let alone = model.loss(&x, &targets, b, t).unwrap();
        assert!((alone.mean() - sum.mean()).abs() < 1e-6);
        for (tensor, (name, variable)) in model.gradients().unwrap().iter().zip(&oracle.variables) {
            assert_eq!(&tensor.name, name);
            assert!(tensor.data.iter().any(|g| *g != 0.0), "{name} received no gradient");
            assert_close(name, &tensor.data, &values(gradients.get(variable).unwrap()));
        }
    }
}

#[test]
fn logits_loss_and_every_gradient_match_candle() {
    compare(&config(), false);
}

#[test]
fn grouped_heads_tied_embeddings_biases_and_ignored_targets_match_candle() {
    compare(&ModelConfig { num_kv_heads: 1, ..config() }, false);
    compare(&ModelConfig { tie_embeddings: true, ..config() }, false);
    compare(&ModelConfig { qkv_bias: true, ..config() }, true);
    compare(
        &ModelConfig {
            d_model: 32,
            num_heads: 4,
            num_kv_heads: 2,
            tie_embeddings: true,
            qkv_bias: true,
            ..config()
        },
        true,
    );
}

#[test]
fn gradients_of_micro_batches_add_up_to_those_of_the_batch() {
    let config = config();
    let (x, targets) = batch(&config, 4, 9, false);
    let mut model = Transformer::new(config.clone(), devices().remove(0), 1).unwrap();
    model.forward_backward(&x, &targets, 4, 9, 1.0).unwrap();
    let whole = model.gradients().unwrap();
    model.zero_gradients().unwrap();
    for half in 0..2 {
        let range = half * 18..(half + 1) * 18;
        model.forward_backward(&x[range.clone()], &targets[range], 2, 9, 0.5).unwrap();
    }
    for (whole, sum) in whole.iter().zip(model.gradients().unwrap()) {
        assert_close(&whole.name, &sum.data, &wide(&whole.data));
    }
}

#[test]
fn a_training_pass_is_bitwise_equal_for_any_number_of_threads() {
    let isa = *kindling_core::simd::Isa::available().last().unwrap();
    let config = ModelConfig {
        d_model: 64,
        num_heads: 4,
        num_kv_heads: 2,
        d_ff: 100,
        vocab_size: 300,
        max_seq_length: 70,
        ..config()
    };
    let (x, targets) = batch(&config, 4, 70, false);
    let run = |threads: usize| {
        let mut model = Transformer::new(config.clone(), device(isa, threads), 1).unwrap();
        let loss = model.forward_backward(&x, &targets, 4, 70, 1.0).unwrap();
        let bits: Vec<u32> = model
            .gradients()
            .unwrap()
            .iter()
            .flat_map(|t| t.data.iter().map(|v| v.to_bits()))
            .collect();
        (loss.sum.to_bits(), bits)
    };
    let one = run(1);
    assert!([2, 3, 8].into_iter().all(|threads| run(threads) == one));
}

#[test]
fn loading_a_state_dict_that_does_not_fit_names_every_tensor_and_changes_nothing() {
    let mut model = Transformer::new(config(), devices().remove(0), 1).unwrap();
    let before = model.state_dict().unwrap();
    let mut state =
        Transformer::new(config(), devices().remove(0), 2).unwrap().state_dict().unwrap();
    state[1].name = "stray".to_owned();
    state[2].shape = vec![1, 2];
    let error = model.load_state_dict(&state).unwrap_err();
    assert_eq!(error.code(), "ERR_CHECKPOINT_MISMATCH");
    let text = error.to_string();
    assert!(
        text.contains(
            "missing: transformer_blocks.0.RMSNorm_Attn.g; unexpected: stray; misshapen: "
        ),
        "{text}"
    );
    assert!(text.contains("q_proj.linear_matrix has shape [1, 2] instead of [30, 30]"), "{text}");
    assert!(model.state_dict().unwrap() == before);
}

#[test]
fn the_spellings_of_the_course_are_accepted_in_a_state_dict() {
    let mut model = Transformer::new(config(), devices().remove(0), 1).unwrap();
    let other = Transformer::new(config(), devices().remove(0), 2).unwrap();
    let mut state = other.state_dict().unwrap();
    for tensor in &mut state {
        tensor.name = tensor.name.replace("Feed_Forward", "Feed_Foward");
    }
    let mut table = state[0].clone();
    table.name = "transformer_blocks.0.Multihead_Attn.rope.cos_values".to_owned();
    state.push(table);
    model.load_state_dict(&state).unwrap();
    assert!(model.state_dict().unwrap() == other.state_dict().unwrap());
}

#[test]
fn an_invalid_batch_is_refused_with_a_code_and_changes_nothing() {
    let mut model = Transformer::new(config(), devices().remove(0), 1).unwrap();
    let code = |result: kindling_core::Result<kindling_core::ops::cross_entropy::LossSum>| {
        result.unwrap_err().code()
    };
    assert_eq!(
        code(model.forward_backward(&[1, 37], &[1, 1], 1, 2, 1.0)),
        "ERR_TOKEN_OUT_OF_RANGE"
    );
    assert_eq!(
        code(model.forward_backward(&[1, 2], &[1, 37], 1, 2, 1.0)),
        "ERR_TOKEN_OUT_OF_RANGE"
    );
    assert_eq!(code(model.forward_backward(&[1, 2], &[1], 1, 2, 1.0)), "ERR_SHAPE_MISMATCH");
    assert_eq!(
        code(model.forward_backward(&[0; 12], &[0; 12], 1, 12, 1.0)),
        "ERR_INVALID_ARGUMENT"
    );
    assert_eq!(code(model.loss(&[], &[], 0, 0)), "ERR_INVALID_ARGUMENT");
    assert!(model.gradients().unwrap().iter().all(|t| t.data.iter().all(|g| *g == 0.0)));
}
