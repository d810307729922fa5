//! Tests of decoding: each sampling rule on a worked example, and the generator against a whole
//! pass for each token.

mod common;

use std::sync::Arc;

use common::devices;
use kindling_core::Result;
use kindling_core::config::ModelConfig;
use kindling_core::cpu::{Cpu, MatmulBackend, MatmulKernel};
use kindling_core::decode::{Generator, GeneratorOptions, SamplingOptions, TokenSampler};
use kindling_core::device::Device;
use kindling_core::model::Transformer;
use kindling_core::random::{Purpose, uniform};
use kindling_core::simd::Isa;

const PLAIN: SamplingOptions =
    SamplingOptions { temperature: 1.0, top_k: None, top_p: 1.0, repetition_penalty: 1.0 };
const WINDOW: usize = 13;

fn sample(
    logits: &mut [f32],
    context: &[u32],
    options: &SamplingOptions,
    uniform: f64,
) -> Result<u32> {
    TokenSampler::default().sample(logits, context, options, uniform)
}

fn config() -> ModelConfig {
    ModelConfig {
        vocab_size: 41,
        d_model: 24,
        num_heads: 4,
        num_kv_heads: 2,
        d_ff: 37,
        num_layers: 3,
        max_seq_length: WINDOW,
        theta: 10_000.0,
        qkv_bias: true,
        ..ModelConfig::PLAIN
    }
}

/// Returns a model whose weights are so large that every token of the window matters.
fn model(config: ModelConfig) -> Transformer {
    let mut model = Transformer::new(config, devices().pop().unwrap(), 5).unwrap();
    let mut state = model.state_dict().unwrap();
    for tensor in &mut state {
        let factor = if tensor.name.contains("bias") { 0.0 } else { 3.0 };
        tensor
            .data
            .iter_mut()
            .for_each(|w| *w = *w * factor + if factor == 0.0 { 0.1 } else { 0.0 });
    }
    model.load_state_dict(&state).unwrap();
    model
}

fn options(sampling: SamplingOptions) -> GeneratorOptions {
    GeneratorOptions {
        max_tokens: 40,
        sampling,
        seed: 11,
        stop: Vec::new(),
        rolling_cache: false,
        limit_vocab: None,
    }
}

/// Draws until all rows have ended. Returns their tokens.
fn generate(
    model: &mut Transformer,
    prompts: &[Vec<u32>],
    options: GeneratorOptions,
) -> Vec<Vec<u32>> {
    let mut generator = Generator::new(model, prompts, options).unwrap();
    let mut drawn = prompts.to_vec();
    while let Some(tokens) = generator.next(model).unwrap() {
        for (row, token) in drawn.iter_mut().zip(tokens) {
            row.extend(token);
        }
    }
    assert!(drawn.iter().enumerate().all(|(row, tokens)| tokens == generator.tokens(row)));
    drawn
}

/// Draws the same tokens with a whole pass over the window for each.
fn generate_by_whole_passes(
    model: &mut Transformer,
    row: usize,
    prompt: &[u32],
    options: &GeneratorOptions,
) -> Vec<u32> {
    let mut tokens = prompt.to_vec();
    for _ in 0..options.max_tokens {
        let context = tokens[tokens.len().saturating_sub(WINDOW)..].to_vec();
        let logits = model.logits(&context).unwrap();
        let mut last = logits[logits.len() - model.config().vocab_size..].to_vec();
        let chance = uniform(options.seed, Purpose::Sampling, tokens.len() as u64, row as u32);
        tokens.push(sample(&mut last, &context, &options.sampling, chance).unwrap());
    }
    tokens
}

fn prompts() -> Vec<Vec<u32>> {
    vec![
        vec![3],
        vec![7, 1, 40, 2],
        (0..WINDOW as u32).collect(),
        (0..30).map(|i| i * 7 % 41).collect(),
    ]
}

#[test]
fn every_token_equals_that_of_a_whole_pass_over_the_window() {
    let mut model = model(config());
    for sampling in [
        PLAIN,
        SamplingOptions { temperature: 0.0, repetition_penalty: 1.5, ..PLAIN },
        SamplingOptions { temperature: 0.8, top_k: Some(9), top_p: 0.9, repetition_penalty: 1.2 },
    ] {
        let drawn = generate(&mut model, &prompts(), options(sampling));
        for (row, prompt) in prompts().iter().enumerate() {
            let expected = generate_by_whole_passes(&mut model, row, prompt, &options(sampling));
            assert_eq!(drawn[row], expected, "{sampling:?}, row {row}");
        }
    }
}

#[test]
fn a_rolling_cache_equals_whole_passes_only_in_a_model_of_one_block() {
    let rolling = GeneratorOptions { rolling_cache: true, ..options(PLAIN) };
    // Keys and values of the first block depend only on their own token, and scores only on
    // distances.
    let mut one = model(ModelConfig { num_layers: 1, ..config() });
    let exact = generate(&mut one, &prompts(), options(PLAIN));
    assert_eq!(generate(&mut one, &prompts(), rolling.clone()), exact);

    let mut deeper = model(config());
    let exact = generate(&mut deeper, &prompts(), options(PLAIN));
    let rolled = generate(&mut deeper, &prompts(), rolling);
    assert_ne!(rolled, exact);
    for (rolled, exact) in rolled.iter().zip(&exact).take(2) {
        assert_eq!(rolled[..=WINDOW], exact[..=WINDOW], "they are equal until the window is full");
    }
    assert!(rolled.iter().zip(prompts()).all(|(row, prompt)| row.len() == prompt.len() + 40));
}

#[test]
fn a_row_does_not_depend_on_the_other_rows() {
    let mut model = model(config());
    let many: Vec<Vec<u32>> = (0..35).map(|i| vec![i % 41, (3 * i) % 41]).collect();
    let few = many[..3].to_vec();
    let mut others = many.clone();
    others[1] = vec![9; 10];
    let drawn = generate(&mut model, &many, options(PLAIN));
    assert_eq!(generate(&mut model, &few, options(PLAIN)), drawn[..3]);
    let changed = generate(&mut model, &others, options(PLAIN));
    assert_eq!((&changed[0], &changed[2..]), (&drawn[0], &drawn[2..]));
    assert_ne!(drawn[0], drawn[34], "rows differ");
    let again = GeneratorOptions { seed: 12, ..options(PLAIN) };
    assert_ne!(generate(&mut model, &many, again), drawn, "seeds differ");
}

#[test]
fn a_row_ends_at_a_stop_token_while_the_others_continue() {
    let mut model = model(config());
    let free = generate(&mut model, &prompts(), options(PLAIN));
    let stop = free[0][6];
    let stopped =
        generate(&mut model, &prompts(), GeneratorOptions { stop: vec![stop], ..options(PLAIN) });
    for ((stopped, free), prompt) in stopped.iter().zip(&free).zip(prompts()) {
        let end =
            free[prompt.len()..].iter().position(|id| *id == stop).map(|at| prompt.len() + at + 1);
        assert_eq!(stopped[..], free[..end.unwrap_or(free.len())]);
    }
    assert!(stopped[0].len() <= 7 && stopped.iter().any(|row| row.len() > 7));

    let mut generator = Generator::new(&model, &prompts(), options(PLAIN)).unwrap();
    generator.next(&mut model).unwrap();
    generator.end_row(0);
    let drawn = generator.next(&mut model).unwrap().unwrap();
    assert!(drawn[0].is_none() && drawn[1..].iter().all(Option::is_some));
    let none = GeneratorOptions { max_tokens: 0, ..options(PLAIN) };
    assert_eq!(generate(&mut model, &prompts(), none), prompts());
}

#[test]
fn ids_from_limit_vocab_on_are_never_drawn() {
    let mut model = model(config());
    let flat = SamplingOptions { temperature: 50.0, ..PLAIN };
    let all = generate(&mut model, &prompts(), options(flat));
    assert!(all.iter().flatten().any(|id| *id >= 20));
    let limited = GeneratorOptions { limit_vocab: Some(20), ..options(flat) };
    let drawn = generate(&mut model, &[vec![1], vec![2]], limited);
    assert!(drawn.iter().flatten().all(|id| *id < 20));
}

#[test]
fn temperature_0_takes_the_highest_logit_and_the_lowest_id_of_a_tie() {
    let greedy = SamplingOptions { temperature: 0.0, ..PLAIN };
    assert_eq!(sample(&mut [0.5, 2.0, -1.0, 2.0], &[], &greedy, 0.99).unwrap(), 1);
}

#[test]
fn the_penalty_divides_positive_logits_and_multiplies_negative_ones_once_per_token() {
    let penalty = SamplingOptions { temperature: 0.0, repetition_penalty: 2.0, ..PLAIN };
    let mut logits = [3.0, 2.0, -1.0, -4.0];
    // 3 / 2 = 1.5 is below 2; token 0 is in the context twice and counts once.
    assert_eq!(sample(&mut logits, &[0, 2, 0], &penalty, 0.0).unwrap(), 1);
    assert_eq!(logits, [1.5, 2.0, -2.0, -4.0]);
}

#[test]
fn draws_follow_the_softmax_of_the_logits_over_the_temperature() {
    // Probabilities 1/2, 1/4, 1/4 at temperature 1; at 1/2 they are squared: 2/3, 1/6, 1/6.
    let logits = [2.0f32.ln(), 0.0, 0.0];
    let draw = |temperature: f64, chance: f64| {
        sample(&mut logits.clone(), &[], &SamplingOptions { temperature, ..PLAIN }, chance).unwrap()
    };
    for (chance, id) in [(0.0, 0), (0.49, 0), (0.51, 1), (0.74, 1), (0.76, 2), (0.999_999, 2)] {
        assert_eq!(draw(1.0, chance), id, "{chance}");
    }
    for (chance, id) in [(0.66, 0), (0.67, 1), (0.83, 1), (0.84, 2)] {
        assert_eq!(draw(0.5, chance), id, "{chance}");
    }
    assert_eq!(draw(1e-300, 0.999), 0, "a tiny temperature is greedy and does not overflow");
}

#[test]
fn top_k_keeps_the_k_highest_logits_and_the_lowest_ids_of_a_tie() {
    let top_k = |k, chance| {
        let sampling = SamplingOptions { top_k: Some(k), ..PLAIN };
        sample(&mut [1.0, 5.0, 3.0, 3.0, 3.0], &[], &sampling, chance).unwrap()
    };
    assert!((0..100).all(|i| top_k(1, f64::from(i) / 100.0) == 1));
    assert!((0..100).all(|i| [1, 2].contains(&top_k(2, f64::from(i) / 100.0))));
    assert_eq!(top_k(2, 0.999), 2);
    assert_eq!(top_k(100, 0.999_999), 4, "k above the vocabulary keeps all");
}

#[test]
fn top_p_keeps_a_token_if_the_mass_before_it_is_at_most_p() {
    // Probabilities 0.5, 0.25, 0.125, 0.125 of ids 2, 0, 1, 3.
    let logits = [0.25f32.ln(), 0.125f32.ln(), 0.5f32.ln(), 0.125f32.ln()];
    let reachable = |top_p: f64| {
        let sampling = SamplingOptions { top_p, ..PLAIN };
        let mut ids: Vec<u32> = (0..1000)
            .map(|i| sample(&mut logits.clone(), &[], &sampling, f64::from(i) / 1000.0).unwrap())
            .collect();
        ids.sort_unstable();
        ids.dedup();
        ids
    };
    assert_eq!(reachable(0.1), [2], "the most probable token is always kept");
    assert_eq!(reachable(0.49), [2]);
    // The mass of the tokens before the second is 0.5, at most 0.51. Before the third it is 0.75.
    assert_eq!(reachable(0.51), [0, 2]);
    assert_eq!(reachable(0.76), [0, 1, 2], "of a tie the lower id is kept");
    assert_eq!(reachable(1.0), [0, 1, 2, 3]);
}

#[test]
fn top_p_applies_to_the_mass_that_top_k_has_left() {
    // The two highest of 0.4, 0.3, 0.2, 0.1 are renormalized to 4/7 and 3/7, so the mass before the
    // second exceeds 0.5.
    let logits = [0.4f32.ln(), 0.3f32.ln(), 0.2f32.ln(), 0.1f32.ln()];
    let draw = |top_k| {
        let sampling = SamplingOptions { top_k, top_p: 0.5, ..PLAIN };
        sample(&mut logits.clone(), &[], &sampling, 0.99).unwrap()
    };
    assert_eq!((draw(Some(2)), draw(None)), (0, 1));
}

#[test]
fn settings_out_of_range_and_non_finite_logits_are_refused_with_a_code() {
    for sampling in [
        SamplingOptions { temperature: -0.1, ..PLAIN },
        SamplingOptions { temperature: f64::NAN, ..PLAIN },
        SamplingOptions { temperature: f64::INFINITY, ..PLAIN },
        SamplingOptions { top_k: Some(0), ..PLAIN },
        SamplingOptions { top_p: 0.0, ..PLAIN },
        SamplingOptions { top_p: 1.01, ..PLAIN },
        SamplingOptions { top_p: f64::NAN, ..PLAIN },
        SamplingOptions { repetition_penalty: 0.0, ..PLAIN },
        SamplingOptions { repetition_penalty: f64::NAN, ..PLAIN },
    ] {
        assert_eq!(
            sample(&mut [1.0, 2.0], &[], &sampling, 0.5).unwrap_err().code(),
            "ERR_INVALID_ARGUMENT"
        );
    }
    let lowest = f32::NEG_INFINITY;
    for mut logits in [[1.0, f32::NAN], [f32::INFINITY, 0.0], [lowest, lowest]] {
        assert_eq!(sample(&mut logits, &[], &PLAIN, 0.5).unwrap_err().code(), "ERR_NON_FINITE");
    }
    assert_eq!(sample(&mut [lowest, 0.0, lowest], &[], &PLAIN, 0.0).unwrap(), 1);

    let model = model(config());
    let code = |prompts: &[Vec<u32>], options| {
        Generator::new(&model, prompts, options).unwrap_err().code()
    };
    assert_eq!(code(&[], options(PLAIN)), "ERR_INVALID_ARGUMENT");
    assert_eq!(code(&[vec![]], options(PLAIN)), "ERR_INVALID_ARGUMENT");
    assert_eq!(code(&[vec![41]], options(PLAIN)), "ERR_TOKEN_OUT_OF_RANGE");
    let limit = |limit| GeneratorOptions { limit_vocab: Some(limit), ..options(PLAIN) };
    assert_eq!(code(&[vec![1]], limit(0)), "ERR_INVALID_ARGUMENT");
    assert_eq!(code(&[vec![1]], limit(42)), "ERR_INVALID_ARGUMENT");
}

#[test]
fn greedy_tokens_with_bf16_weights_are_the_highest_of_whole_passes_up_to_rounding() {
    let Some(kernel) = MatmulKernel::detect_bf16() else { return };
    let device = Device::Cpu(Arc::new(Cpu::new(2, Isa::detect(), MatmulBackend::Packed(kernel))));
    let mut model = Transformer::new(config(), device, 5).unwrap();
    let greedy = SamplingOptions { temperature: 0.0, ..PLAIN };
    let prompt = vec![3, 1, 4];
    let tokens = generate(
        &mut model,
        std::slice::from_ref(&prompt),
        GeneratorOptions { max_tokens: 9, ..options(greedy) },
    );
    for end in prompt.len()..tokens[0].len() {
        let logits = model.logits(&tokens[0][..end]).unwrap();
        let last = &logits[logits.len() - 41..];
        let (highest, chosen) =
            (last.iter().copied().fold(f32::MIN, f32::max), last[tokens[0][end] as usize]);
        assert!(highest - chosen < 0.02, "{highest} {chosen}");
    }
    // After the weights change, they are rounded again.
    let mut state = model.state_dict().unwrap();
    for tensor in &mut state {
        tensor.data.iter_mut().for_each(|w| *w = -*w);
    }
    model.load_state_dict(&state).unwrap();
    let mut other = Transformer::new(config(), model.device().clone(), 6).unwrap();
    other.load_state_dict(&state).unwrap();
    let options = || GeneratorOptions { max_tokens: 9, ..options(greedy) };
    let prompts = [prompt];
    assert!(generate(&mut model, &prompts, options()) == generate(&mut other, &prompts, options()));
}
