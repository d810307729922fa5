//! Rows of tokens, each continued until it ends by itself.
//!
//! A row's draws depend on its tokens, its index and the seed, not on the other rows. Its prompt takes one pass; then each
//! token one row of a pass against the cache. When the context is full it slides, every rotation changes, and each token is
//! a fresh pass over the last `max_seq_length` tokens, unless the cache rolls.

use super::token_sampler::{SamplingOptions, TokenSampler};
use crate::model::{CacheStep, KvCache, Transformer};
use crate::ops::check_ids;
use crate::random::{Purpose, uniform};
use crate::{Error, Result};

/// Rows of one pass against the cache: as many share one reading of the weights, and few enough that each row's
/// arithmetic is the same whatever their number.
const ROWS_AT_ONCE: usize = 16;

/// How tokens are drawn and when a row ends.
#[derive(Debug, Clone, PartialEq)]
pub struct GeneratorOptions {
    /// Most tokens drawn for a row.
    pub max_tokens: usize,
    /// How a token is drawn.
    pub sampling: SamplingOptions,
    /// Seed of the draws.
    pub seed: u64,
    /// Tokens that end a row.
    pub stop: Vec<u32>,
    /// When the context is full, drop the oldest token of the cache in place of a fresh pass: faster, and not the same.
    pub rolling_cache: bool,
    /// Ids from here on are never drawn: those that pad a vocabulary beyond its tokenizer's.
    pub limit_vocab: Option<usize>,
}

/// One row.
#[derive(Debug)]
struct Row {
    /// Prompt and draws.
    tokens: Vec<u32>,
    drawn: usize,
    ended: bool,
    /// The cache holds all tokens but the last.
    cached: bool,
}

/// Draws tokens after each of some prompts.
#[derive(Debug)]
pub struct Generator {
    options: GeneratorOptions,
    rows: Vec<Row>,
    cache: KvCache,
    sampler: TokenSampler,
    /// Scores of the rows of a pass (rows, v).
    logits: Vec<f32>,
}

impl Generator {
    /// A generator that continues `prompts`.
    ///
    /// # Errors
    /// `ERR_INVALID_ARGUMENT` (no prompt, an empty one, an option out of its range), `ERR_TOKEN_OUT_OF_RANGE`.
    pub fn new(
        model: &Transformer,
        prompts: &[Vec<u32>],
        options: GeneratorOptions,
    ) -> Result<Self> {
        let config = model.config();
        options.sampling.validate()?;
        if prompts.is_empty() || prompts.iter().any(Vec::is_empty) {
            return Err(Error::argument("decoding starts from prompts of at least one token each"));
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

    /// Draws one token for each row that has not ended; none when all have. A token of `stop` is given, and ends its row.
    ///
    /// # Errors
    /// `ERR_NON_FINITE` when a score is NaN or infinite.
    pub fn next(&mut self, model: &mut Transformer) -> Result<Option<Vec<Option<u32>>>> {
        let going: Vec<usize> = (0..self.rows.len()).filter(|row| !self.rows[*row].ended).collect();
        if going.is_empty() {
            return Ok(None);
        }
        let mut drawn = vec![None; self.rows.len()];
        let window = model.config().max_seq_length;
        let (step, fresh): (Vec<usize>, Vec<usize>) = going.iter().partition(|row| {
            let row = &self.rows[**row];
            row.cached && (row.tokens.len() <= window || self.options.rolling_cache)
        });
        for row in fresh {
            self.fresh_pass(model, row)?;
            drawn[row] = Some(self.draw(model, row, 0)?);
        }
        for rows in step.chunks(ROWS_AT_ONCE) {
            self.cached_pass(model, rows)?;
            for (index, &row) in rows.iter().enumerate() {
                drawn[row] = Some(self.draw(model, row, index)?);
            }
        }
        Ok(Some(drawn))
    }

    /// Whether `row` has ended.
    pub fn has_ended(&self, row: usize) -> bool {
        self.rows[row].ended
    }

    /// Ends `row`: no more tokens are drawn for it.
    pub fn end_row(&mut self, row: usize) {
        self.rows[row].ended = true;
    }

    /// Prompt and draws of `row`.
    pub fn tokens(&self, row: usize) -> &[u32] {
        &self.rows[row].tokens
    }

    /// Whether `id` ends a row.
    pub fn is_stop(&self, id: u32) -> bool {
        self.options.stop.contains(&id)
    }

    /// A pass over the context of `row`; its last scores become the first row of `logits`.
    fn fresh_pass(&mut self, model: &mut Transformer, row: usize) -> Result<()> {
        let tokens = &self.rows[row].tokens;
        let window = model.config().max_seq_length;
        let context = &tokens[tokens.len().saturating_sub(window)..];
        // A context that slides is passed over again for the next token: keys and values are then of no use.
        let keep = context.len() < window || self.options.rolling_cache;
        self.logits.resize(model.config().vocab_size, 0.0);
        model.prefill(context, &mut self.logits, keep.then_some((&mut self.cache, row)))?;
        self.rows[row].cached = keep;
        Ok(())
    }

    /// The last token of each of `rows` against the cache; scores in the order of `rows`.
    fn cached_pass(&mut self, model: &mut Transformer, rows: &[usize]) -> Result<()> {
        let ids: Vec<u32> =
            rows.iter().filter_map(|row| self.rows[*row].tokens.last().copied()).collect();
        self.logits.resize(rows.len() * model.config().vocab_size, 0.0);
        model.decode_step(&ids, &mut self.logits, CacheStep { cache: &mut self.cache, rows })
    }

    /// Draws the next token of `row` from row `index` of the scores.
    fn draw(&mut self, model: &Transformer, row: usize, index: usize) -> Result<u32> {
        let config = model.config();
        let scores = &mut self.logits[index * config.vocab_size..(index + 1) * config.vocab_size];
        if let Some(limit) = self.options.limit_vocab {
            scores[limit..].fill(f32::NEG_INFINITY);
        }
        let state = &mut self.rows[row];
        let context = &state.tokens[state.tokens.len().saturating_sub(config.max_seq_length)..];
        let chance =
            uniform(self.options.seed, Purpose::Sampling, state.tokens.len() as u64, row as u32);
        let id = self.sampler.sample(scores, context, &self.options.sampling, chance)?;
        state.tokens.push(id);
        state.drawn += 1;
        state.ended = state.drawn >= self.options.max_tokens || self.options.stop.contains(&id);
        Ok(id)
    }
}
