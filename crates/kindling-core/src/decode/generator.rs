//! Continues the rows of a batch, each until it ends.
//!
//! ```text
//! first token of a row:            prefill, a pass over the prompt that fills the cache
//! while the tokens fit the window: decode step, one row of a pass against the cache
//! once the window slides:          prefill again for each token, over the window, or, if
//!                                  allowed, decode steps against the rolling cache
//! ```
//!
//! 1. Once the window slides, each token takes a pass over the whole window. A token has left it,
//!    which changes the keys and values of all the others above the first block, so the cached ones
//!    are stale. The rolling cache (`model/kv_cache.rs`) keeps using them, which is faster but not
//!    equal.
//! 2. A decode step takes up to `ROWS_AT_ONCE` rows, which then share one pass over the weights.
//! 3. The draws of a row depend on its tokens, its index and the seed, not on the other rows.

use super::token_sampler::{SamplingOptions, TokenSampler};
use crate::model::{CacheStep, KvCache, Transformer};
use crate::ops::check_ids;
use crate::random::{Purpose, uniform};
use crate::{Error, Result};

/// Maximum rows of a decode step, low enough that the arithmetic of a row is the same for any
/// number of rows.
const ROWS_AT_ONCE: usize = 16;

/// Settings of the draws, and when a row ends.
#[derive(Debug, Clone, PartialEq)]
pub struct GeneratorOptions {
    /// Maximum number of tokens drawn per row.
    pub max_tokens: usize,
    pub sampling: SamplingOptions,
    /// Seed of the draws.
    pub seed: u64,
    /// Tokens that end a row.
    pub stop: Vec<u32>,
    /// Once the window is full, replaces the oldest cached token instead of running a pass over the
    /// window, which is faster but not equal.
    pub rolling_cache: bool,
    /// Ids from this one up are never drawn: they pad the vocabulary beyond the tokenizer's.
    pub limit_vocab: Option<usize>,
}

#[derive(Debug)]
struct Row {
    /// Prompt and drawn tokens.
    tokens: Vec<u32>,
    drawn: usize,
    ended: bool,
    /// Set if the cache holds all tokens but the last.
    cached: bool,
}

/// Draws tokens that continue prompts.
#[derive(Debug)]
pub struct Generator {
    options: GeneratorOptions,
    rows: Vec<Row>,
    cache: KvCache,
    sampler: TokenSampler,
    /// Logits of the rows of a pass (rows, v).
    logits: Vec<f32>,
}

impl Generator {
    /// Builds a generator that continues `prompts`.
    ///
    /// # Errors
    /// Returns `ERR_INVALID_ARGUMENT` if there is no prompt, a prompt is empty or an option is out
    /// of range, and `ERR_TOKEN_OUT_OF_RANGE` if a token is outside the vocabulary.
    pub fn new(
        model: &Transformer,
        prompts: &[Vec<u32>],
        options: GeneratorOptions,
    ) -> Result<Self> {
        let config = model.config();
        options.sampling.validate()?;
        if prompts.is_empty() || prompts.iter().any(Vec::is_empty) {
            return Err(Error::argument(
                "the prompts are empty; give at least one prompt, and at least one token in each",
            ));
        }
        if let Some(limit) =
            options.limit_vocab.filter(|limit| !(1..=config.vocab_size).contains(limit))
        {
            return Err(Error::argument(format!(
                "limit_vocab is {limit}; it must be from 1 to the model's vocab_size {}",
                config.vocab_size
            )));
        }
        prompts.iter().try_for_each(|prompt| check_ids(prompt, config.vocab_size))?;
        let longest = prompts.iter().map(Vec::len).max().unwrap_or(0);
        let capacity = longest.saturating_add(options.max_tokens).min(config.max_seq_length);
        let cache = KvCache::new(model.device(), config, prompts.len(), capacity)?;
        let row = |prompt: &Vec<u32>| Row {
            tokens: prompt.clone(),
            drawn: 0,
            ended: options.max_tokens == 0,
            cached: false,
        };
        let rows = prompts.iter().map(row).collect();
        Ok(Self { options, rows, cache, sampler: TokenSampler::default(), logits: Vec::new() })
    }

    /// Draws one token for each row that has not ended. Returns `None` if all have.
    ///
    /// A token in `GeneratorOptions::stop` is returned as well, and ends its row.
    ///
    /// # Errors
    /// Returns `ERR_NON_FINITE` if a logit is NaN or +inf, or all are -inf.
    pub fn next(&mut self, model: &mut Transformer) -> Result<Option<Vec<Option<u32>>>> {
        let active: Vec<usize> =
            (0..self.rows.len()).filter(|row| !self.rows[*row].ended).collect();
        if active.is_empty() {
            return Ok(None);
        }
        let mut drawn = vec![None; self.rows.len()];
        let window = model.config().max_seq_length;
        let (cached, fresh): (Vec<usize>, Vec<usize>) = active.iter().partition(|row| {
            let row = &self.rows[**row];
            row.cached && (row.tokens.len() <= window || self.options.rolling_cache)
        });
        for row in fresh {
            self.prefill(model, row)?;
            drawn[row] = Some(self.draw(model, row, 0)?);
        }
        for rows in cached.chunks(ROWS_AT_ONCE) {
            self.decode_step(model, rows)?;
            for (index, &row) in rows.iter().enumerate() {
                drawn[row] = Some(self.draw(model, row, index)?);
            }
        }
        Ok(Some(drawn))
    }

    pub fn has_ended(&self, row: usize) -> bool {
        self.rows[row].ended
    }

    /// Ends `row`, so that no more tokens are drawn for it.
    pub fn end_row(&mut self, row: usize) {
        self.rows[row].ended = true;
    }

    /// Returns the prompt and the drawn tokens of `row`.
    pub fn tokens(&self, row: usize) -> &[u32] {
        &self.rows[row].tokens
    }

    /// Returns whether drawing this token ends a row.
    pub fn is_stop(&self, id: u32) -> bool {
        self.options.stop.contains(&id)
    }

    /// Runs a pass over the window of `row`. Writes the logits after its last token to the first
    /// row of `logits`.
    fn prefill(&mut self, model: &mut Transformer, row: usize) -> Result<()> {
        let tokens = &self.rows[row].tokens;
        let window = model.config().max_seq_length;
        let context = &tokens[tokens.len().saturating_sub(window)..];
        // After a full window, the next token needs a whole pass again, which does not read the
        // cache.
        let cache = context.len() < window || self.options.rolling_cache;
        self.logits.resize(model.config().vocab_size, 0.0);
        model.prefill(context, &mut self.logits, cache.then_some((&mut self.cache, row)))?;
        self.rows[row].cached = cache;
        Ok(())
    }

    /// Runs a decode step on the last token of each of `rows`. Writes the logits of `rows[i]` to
    /// row i of `logits`.
    fn decode_step(&mut self, model: &mut Transformer, rows: &[usize]) -> Result<()> {
        let ids: Vec<u32> =
            rows.iter().filter_map(|row| self.rows[*row].tokens.last().copied()).collect();
        self.logits.resize(rows.len() * model.config().vocab_size, 0.0);
        model.decode_step(&ids, &mut self.logits, CacheStep { cache: &mut self.cache, rows })
    }

    /// Draws the next token of `row` from row `index` of `logits`.
    fn draw(&mut self, model: &Transformer, row: usize, index: usize) -> Result<u32> {
        let config = model.config();
        let logits = &mut self.logits[index * config.vocab_size..(index + 1) * config.vocab_size];
        if let Some(limit) = self.options.limit_vocab {
            logits[limit..].fill(f32::NEG_INFINITY);
        }
        let state = &mut self.rows[row];
        let context = &state.tokens[state.tokens.len().saturating_sub(config.max_seq_length)..];
        let draw =
            uniform(self.options.seed, Purpose::Sampling, state.tokens.len() as u64, row as u32);
        let id = self.sampler.sample(logits, context, &self.options.sampling, draw)?;
        state.tokens.push(id);
        state.drawn += 1;
        state.ended = state.drawn >= self.options.max_tokens || self.options.stop.contains(&id);
        Ok(id)
    }
}
