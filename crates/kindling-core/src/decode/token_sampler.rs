//! One token from the scores of all. In this order: repetition penalty, temperature, top-k, softmax, top-p, draw.

use std::cmp::Ordering;

use crate::{Error, Result};

/// How a token is drawn.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SamplingOptions {
    /// Divides the scores; 0 takes the highest (of equal ones the lowest id).
    pub temperature: f64,
    /// Only the k highest scores take part (of equal ones the lowest ids).
    pub top_k: Option<usize>,
    /// A token stays while the mass of those more probable is at most p; above 0, at most 1.
    pub top_p: f64,
    /// The score s of each distinct token of the context becomes s / r where s > 0, else s r.
    pub repetition_penalty: f64,
}

impl SamplingOptions {
    /// Says whether every setting is in its range.
    ///
    /// # Errors
    /// `ERR_INVALID_ARGUMENT` naming the setting, its value and its range.
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

/// A token that may be drawn.
#[derive(Debug, Clone, Copy)]
struct Candidate {
    id: u32,
    /// Score over temperature, less the highest one's; then its probability, not normalised.
    weight: f64,
}

/// Highest weight first, of equal ones the lowest id.
fn by_weight(a: &Candidate, b: &Candidate) -> Ordering {
    b.weight.total_cmp(&a.weight).then(a.id.cmp(&b.id))
}

/// Draws tokens, with memory that is kept from one to the next.
#[derive(Debug, Default)]
pub struct TokenSampler {
    candidates: Vec<Candidate>,
    distinct: Vec<u32>,
}

impl TokenSampler {
    /// Draws a token. `logits` (v) is changed by the penalty; a score of -inf is never drawn; `uniform` is in [0, 1).
    ///
    /// # Errors
    /// `ERR_INVALID_ARGUMENT` for a setting out of its range; `ERR_NON_FINITE` where a score is NaN or +inf, or none is
    /// above -inf.
    pub fn sample(
        &mut self,
        logits: &mut [f32],
        context: &[u32],
        sampling: &SamplingOptions,
        uniform: f64,
    ) -> Result<u32> {
        sampling.validate()?;
        self.penalise(logits, context, sampling.repetition_penalty);
        let (best, highest) = highest(logits).ok_or(Error::NonFinite {
            what: "a score of the next token",
            step: context.len() as u64,
        })?;
        if sampling.temperature == 0.0 {
            return Ok(best);
        }
        let weight = |score: f32| (f64::from(score) - f64::from(highest)) / sampling.temperature;
        self.candidates.clear();
        self.candidates.extend(
            (0..).zip(logits.iter()).map(|(id, &score)| Candidate { id, weight: weight(score) }),
        );
        self.keep_top_k(sampling.top_k);
        self.candidates.iter_mut().for_each(|c| c.weight = c.weight.exp());
        self.keep_top_p(sampling.top_p);
        Ok(self.draw(uniform, best))
    }

    fn penalise(&mut self, logits: &mut [f32], context: &[u32], penalty: f64) {
        if penalty == 1.0 {
            return;
        }
        self.distinct.clear();
        self.distinct.extend_from_slice(context);
        self.distinct.sort_unstable();
        self.distinct.dedup();
        for &id in &self.distinct {
            if let Some(score) = logits.get_mut(id as usize) {
                let s = f64::from(*score);
                *score = (if s > 0.0 { s / penalty } else { s * penalty }) as f32;
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
        // All tokens below this together have less than 1 - p, so more than p lies before each: they need no sorting.
        let negligible = total * (1.0 - top_p) / self.candidates.len() as f64 * (1.0 - 1e-9);
        self.candidates.retain(|c| c.weight >= negligible);
        self.candidates.sort_unstable_by(by_weight);
        let mut before = 0.0;
        let stay = self
            .candidates
            .iter()
            .take_while(|c| {
                let stays = before <= top_p * total;
                before += c.weight;
                stays
            })
            .count();
        self.candidates.truncate(stay);
    }

    /// The candidate in whose share of [0, 1), in the order of ids, `uniform` falls.
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

/// The highest score and its lowest id; none where a score is NaN or +inf or all are -inf.
fn highest(logits: &[f32]) -> Option<(u32, f32)> {
    let mut best = (0, f32::NEG_INFINITY);
    for (id, &score) in (0..).zip(logits) {
        if score.is_nan() || score == f32::INFINITY {
            return None;
        }
        if score > best.1 {
            best = (id, score);
        }
    }
    (best.1 > f32::NEG_INFINITY).then_some(best)
}
