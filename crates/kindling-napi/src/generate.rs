//! Decoding: the engine's generator, which keeps its key/value cache between calls.

use std::sync::Arc;
use std::time::{Duration, Instant};

use kindling_core::decode::{
    Generator as Engine, GeneratorOptions as EngineOptions, SamplingOptions,
};
use kindling_core::model::Transformer as EngineModel;
use kindling_core::{Error, Result};
use napi::bindgen_prelude::{AsyncTask, Uint32Array};

use crate::error::to_napi;
use crate::exclusive::{Exclusive, Guard};
use crate::model::{Model, Transformer};
use crate::options::{integer, rate, size};
use crate::task::{Job, spawn};

/// How tokens are drawn, and when a row ends.
#[napi(object)]
pub struct GeneratorOptions {
    /// Maximum number of tokens drawn per row.
    pub max_tokens: f64,
    /// Divides the logits; 0 always picks the most likely token.
    pub temperature: f64,
    /// Draws from the `topK` most likely tokens only; all by default.
    pub top_k: Option<f64>,
    /// Draws from the fewest most likely tokens whose total probability exceeds this; in (0, 1].
    pub top_p: f64,
    /// For tokens in the context, divides positive logits by this and multiplies negative ones; 1
    /// has no effect.
    pub repetition_penalty: f64,
    pub seed: f64,
    /// Ids that end a row when they are drawn.
    pub stop_ids: Vec<u32>,
    /// Keeps the key/value cache once the context is full, instead of running a pass over the whole
    /// context for every token: faster, but the tokens differ.
    pub rolling_cache: bool,
    /// Ids from this one on are never drawn: those that pad the vocabulary beyond the tokenizer's.
    pub limit_vocab: Option<f64>,
}

impl GeneratorOptions {
    fn lower(self) -> Result<EngineOptions> {
        let sampling = SamplingOptions {
            temperature: self.temperature,
            top_k: self.top_k.map(|k| size("topK", k)).transpose()?,
            top_p: self.top_p,
            repetition_penalty: self.repetition_penalty,
        };
        sampling.validate()?;
        Ok(EngineOptions {
            max_tokens: size("maxTokens", self.max_tokens)?,
            sampling,
            seed: integer("seed", self.seed)?,
            stop: self.stop_ids,
            rolling_cache: self.rolling_cache,
            limit_vocab: self.limit_vocab.map(|limit| size("limitVocab", limit)).transpose()?,
        })
    }
}

/// A generator whose engine is built by the first call, as the model's may not exist earlier.
pub struct State {
    prompts: Vec<Vec<u32>>,
    options: EngineOptions,
    engine: Option<Engine>,
}

impl State {
    fn engine(&mut self, model: &EngineModel) -> Result<&mut Engine> {
        if self.engine.is_none() {
            self.engine = Some(Engine::new(model, &self.prompts, self.options.clone())?);
        }
        self.engine.as_mut().ok_or_else(|| Error::Internal("the generator is missing".to_owned()))
    }

    /// Draws until `budget` has passed or all rows have ended, but at least one token per open row.
    fn draw(&mut self, model: &mut EngineModel, budget: Duration) -> Result<Vec<DrawnTokens>> {
        let rows = self.prompts.len();
        let engine = self.engine(model)?;
        let (mut ids, mut at_stop_id) = (vec![Vec::new(); rows], vec![false; rows]);
        let start = Instant::now();
        while let Some(drawn) = engine.next(model)? {
            for (row, id) in drawn.into_iter().enumerate() {
                match id {
                    Some(id) if engine.is_stop(id) => at_stop_id[row] = true,
                    Some(id) => ids[row].push(id),
                    None => {}
                }
            }
            if start.elapsed() >= budget {
                break;
            }
        }
        let drawn = ids.into_iter().zip(at_stop_id).enumerate();
        Ok(drawn
            .map(|(row, (ids, at_stop_id))| DrawnTokens {
                ids: ids.into(),
                ended: engine.has_ended(row),
                at_stop_id,
            })
            .collect())
    }
}

/// Tokens drawn for one row by one call.
#[napi(object)]
pub struct DrawnTokens {
    /// New tokens, without the stop token that ended the row.
    pub ids: Uint32Array,
    /// True once the row has ended.
    pub ended: bool,
    /// True if it ended at one of `stopIds`.
    pub at_stop_id: bool,
}

/// Draws the tokens of one or more rows; `src/generate.ts` decodes them to text.
#[napi]
pub struct Generator {
    inner: Arc<Exclusive<State>>,
    model: Arc<Exclusive<Model>>,
}

/// The guards that a call on a generator holds, in the order in which they are acquired.
pub struct Held {
    model: Guard<Model>,
    state: Guard<State>,
}

#[napi]
impl Generator {
    /// Creates a generator that continues `prompts`, token ids of one row each. Throws
    /// `ERR_INVALID_ARGUMENT` for an option out of range. Memory is allocated, and prompts are
    /// checked, by the first `next`.
    #[napi(constructor, catch_unwind)]
    pub fn new(
        model: &Transformer,
        prompts: Vec<Uint32Array>,
        options: GeneratorOptions,
    ) -> napi::Result<Self> {
        let options = options.lower().map_err(to_napi)?;
        let prompts = prompts.iter().map(|ids| ids.to_vec()).collect();
        let state = State { prompts, options, engine: None };
        Ok(Self {
            inner: Exclusive::new("the generator", state),
            model: Arc::clone(model.exclusive()),
        })
    }

    /// Draws tokens for about `budgetMs` milliseconds, at least one for each row that has not
    /// ended. Returns one element per prompt.
    ///
    /// Fails with `ERR_NON_FINITE` if a logit is NaN or +Infinity, and `ERR_BUSY` while another
    /// call on the model runs.
    #[napi(catch_unwind, ts_return_type = "Promise<Array<DrawnTokens>>")]
    pub fn next(&self, budget_ms: f64) -> napi::Result<AsyncTask<Job<Held, Vec<DrawnTokens>>>> {
        let (held, budget) = self.start(budget_ms).map_err(to_napi)?;
        Ok(spawn(held, move |held| {
            held.model.with(|model| held.state.with(|state| state.draw(model.engine()?, budget)))
        }))
    }

    /// Ends row `row`, counted from 0: no more tokens are drawn for it. Has no effect before the
    /// first `next`.
    #[napi(catch_unwind)]
    pub fn end_row(&self, row: u32) -> napi::Result<()> {
        let end = |state: &mut State| {
            if let Some(engine) =
                state.engine.as_mut().filter(|_| (row as usize) < state.prompts.len())
            {
                engine.end_row(row as usize);
            }
            Ok(())
        };
        self.inner.acquire().and_then(|guard| guard.with(end)).map_err(to_napi)
    }

    /// Frees the cache, at once or when the pending call settles. Never waits.
    #[napi(catch_unwind)]
    pub fn close(&self) {
        self.inner.close();
    }

    fn start(&self, budget_ms: f64) -> Result<(Held, Duration)> {
        let budget = Duration::from_secs_f64(rate("budgetMs", budget_ms)?.min(1e6) / 1e3);
        Ok((Held { model: self.model.acquire()?, state: self.inner.acquire()? }, budget))
    }
}
