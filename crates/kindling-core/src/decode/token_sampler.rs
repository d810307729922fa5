//! Draws a token from logits.
//!
//! ```text
//! logits  := repetition penalty on the tokens of the context
//! if temperature is 0: return the token of the highest logit
//! weights := logits / temperature
//! keep the top_k highest weights
//! weights := exp(weights - maximum)
//! keep the smallest set of the heaviest tokens with more than top_p of the mass
//! draw in proportion to the weights
//! ```
//!
//! Of equal weights the lower id comes first, so the result does not depend on the sorting
//! algorithm.

use std::cmp::Ordering;

use crate::{Error, Result};

/// Settings of a draw.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SamplingOptions {
    /// Divides the logits; 0 always takes the highest.
    pub temperature: f64,
    /// Keeps only the k highest logits.
    pub top_k: Option<usize>,
    /// Keeps a token if the tokens more probable than it have at most this probability in total. In
    /// (0, 1].
    pub top_p: f64,
    /// Divides the positive logits of tokens in the context by this, and multiplies the negative
    /// ones, once per distinct token.
    pub repetition_penalty: f64,
}

impl SamplingOptions {
    /// Checks the range of every setting.
    ///
    /// # Errors
    /// Returns `ERR_INVALID_ARGUMENT` with the setting, its value and its range.
    pub fn validate(&self) -> Result<()> {
        let fail = |name: &str, value: f64, range: &str| {
            Err(Error::argument(format!("{name} is {value}; it must be {range}")))
        };
        if !(self.temperature.is_finite() && self.temperature >= 0.0) {
            return fail("temperature", self.temperature, "a finite number of at least 0");
        }
        if self.top_k == Some(0) {
            return fail("top_k", 0.0, "at least 1");
        }
        if !(self.top_p > 0.0 && self.top_p <= 1.0) {
            return fail("top_p", self.top_p, "above 0 and at most 1");
        }
        if !(self.repetition_penalty.is_finite() && self.repetition_penalty > 0.0) {
            return fail("repetition_penalty", self.repetition_penalty, "a finite number above 0");
        }
        Ok(())
    }
}

/// A token that may still be drawn.
#[derive(Debug, Clone, Copy)]
struct Candidate {
    id: u32,
    /// (logit - maximum) / temperature; later its exponential, an unnormalised probability.
    weight: f64,
}

/// Orders by descending weight, then by ascending id.
fn by_weight(a: &Candidate, b: &Candidate) -> Ordering {
    b.weight.total_cmp(&a.weight).then(a.id.cmp(&b.id))
}

/// Draws tokens, and reuses its memory from one draw to the next.
#[derive(Debug, Default)]
pub struct TokenSampler {
    candidates: Vec<Candidate>,
    distinct: Vec<u32>,
}

impl TokenSampler {
    /// Draws a token, given a uniformly random number in [0, 1). Applies the penalty to `logits`
    /// (v) in place. A token with the logit -inf is never drawn.
    ///
    /// # Errors
    /// Returns `ERR_INVALID_ARGUMENT` if a setting is out of range, and `ERR_NON_FINITE` if a logit
    /// is NaN or +inf, or all are -inf.
    pub fn sample(
        &mut self,
        logits: &mut [f32],
        context: &[u32],
        options: &SamplingOptions,
        uniform: f64,
    ) -> Result<u32> {
        options.validate()?;
        self.penalize(logits, context, options.repetition_penalty);
        let (best, highest) = highest(logits).ok_or(Error::NonFinite {
            what: "a logit of the next token",
            step: context.len() as u64,
        })?;
        if options.temperature == 0.0 {
            return Ok(best);
        }
        let weight = |logit: f32| (f64::from(logit) - f64::from(highest)) / options.temperature;
        self.candidates.clear();
        self.candidates.extend(
            (0..).zip(logits.iter()).map(|(id, &logit)| Candidate { id, weight: weight(logit) }),
        );
        self.keep_top_k(options.top_k);
        self.candidates.iter_mut().for_each(|c| c.weight = c.weight.exp());
        self.keep_top_p(options.top_p);
        Ok(self.draw(uniform, best))
    }

    /// Applies the repetition penalty, once per distinct token of the context.
    fn penalize(&mut self, logits: &mut [f32], context: &[u32], penalty: f64) {
        if penalty == 1.0 {
            return;
        }
        self.distinct.clear();
        self.distinct.extend_from_slice(context);
        self.distinct.sort_unstable();
        self.distinct.dedup();
        for &id in &self.distinct {
            if let Some(logit) = logits.get_mut(id as usize) {
                let x = f64::from(*logit);
                *logit = (if x > 0.0 { x / penalty } else { x * penalty }) as f32;
            }
        }
    }

    fn keep_top_k(&mut self, top_k: Option<usize>) {
        if let Some(k) = top_k.filter(|k| *k < self.candidates.len()) {
            self.candidates.select_nth_unstable_by(k - 1, by_weight);
            self.candidates.truncate(k);
        }
    }

    fn keep_top_p(&mut self, top_p: f64) {
        if top_p >= 1.0 {
            return;
        }
        let total: f64 = self.candidates.iter().map(|c| c.weight).sum();
        // All lighter tokens together have less than 1 - p of the mass, so more than p precedes
        // each of them. Dropping them first makes the sort short.
        let negligible = total * (1.0 - top_p) / self.candidates.len() as f64 * (1.0 - 1e-9);
        self.candidates.retain(|c| c.weight >= negligible);
        self.candidates.sort_unstable_by(by_weight);
        let mut before = 0.0;
        let kept = self
            .candidates
            .iter()
            .take_while(|c| {
                let keep = before <= top_p * total;
                before += c.weight;
                keep
            })
            .count();
        self.candidates.truncate(kept);
    }

    /// Returns the candidate whose share of [0, 1) contains `uniform`. The shares are in the order
    /// of the ids.
    fn draw(&mut self, uniform: f64, best: u32) -> u32 {
        self.candidates.sort_unstable_by_key(|c| c.id);
        let total: f64 = self.candidates.iter().map(|c| c.weight).sum();
        let mut rest = uniform * total;
        let mut last = best;
        for candidate in self.candidates.iter().filter(|c| c.weight > 0.0) {
            last = candidate.id;
            rest -= candidate.weight;
            if rest < 0.0 {
                break;
            }
        }
        last
    }
}

/// Returns the highest logit and the lowest id that has it, or `None` if a logit is NaN or +inf, or
/// all are -inf.
fn highest(logits: &[f32]) -> Option<(u32, f32)> {
    let mut best = (0, f32::NEG_INFINITY);
    for (id, &logit) in (0..).zip(logits) {
        if logit.is_nan() || logit == f32::INFINITY {
            return None;
        }
        if logit > best.1 {
            best = (id, logit);
        }
    }
    (best.1 > f32::NEG_INFINITY).then_some(best)
}
