//! Optimizers: built in the first call that needs them, since their model may not be built before.

use std::sync::Arc;

use kindling_core::model::Transformer as Engine;
use kindling_core::optim::{self, GroupOptions, Optimizer as Rule};
use kindling_core::{Error, Result};
use napi::bindgen_prelude::{AsyncTask, ToNapiValue, TypeName};

use crate::error::to_napi;
use crate::exclusive::{Exclusive, Guard};
use crate::model::{Model, Transformer};
use crate::options::rate;
use crate::task::{Job, spawn};

/// Settings of one group of parameters; what it leaves out it inherits.
#[napi(object)]
pub struct AdamWGroup {
    /// Parameter names, `*` standing for any characters.
    pub pattern: String,
    /// Learning rate.
    pub lr: Option<f64>,
    /// Decay rates of the moments.
    pub betas: Option<Vec<f64>>,
    /// Added to the root of the second moment.
    pub eps: Option<f64>,
    /// Decoupled weight decay.
    pub weight_decay: Option<f64>,
}

/// Settings of AdamW, all of them given.
#[napi(object)]
pub struct AdamWOptions {
    /// Rate of an update that is given none.
    pub lr: f64,
    /// Decay rates of the moments.
    pub betas: Vec<f64>,
    /// Added to the root of the second moment.
    pub eps: f64,
    /// Decoupled weight decay.
    pub weight_decay: f64,
    /// Parameters with settings of their own.
    pub groups: Vec<AdamWGroup>,
}

/// Settings of one group of parameters; what it leaves out it inherits.
#[napi(object)]
pub struct SgdGroup {
    /// Parameter names, `*` standing for any characters.
    pub pattern: String,
    /// Learning rate.
    pub lr: Option<f64>,
    /// Weight decay.
    pub weight_decay: Option<f64>,
}

/// Settings of SGD, all of them given.
#[napi(object)]
pub struct SgdOptions {
    /// Rate of an update that is given none.
    pub lr: f64,
    /// Weight decay.
    pub weight_decay: f64,
    /// The rate does not fall with the steps.
    pub constant: bool,
    /// Parameters with settings of their own.
    pub groups: Vec<SgdGroup>,
}

/// What it takes to build an optimizer.
enum Plan {
    AdamW(optim::AdamWOptions),
    Sgd(optim::SgdOptions),
}

/// An optimizer that may not be built yet.
pub struct State {
    plan: Plan,
    rule: Option<Box<dyn Rule + Send>>,
}

impl State {
    /// The engine's optimizer of `model`, built now if need be.
    fn rule(&mut self, model: &Engine) -> Result<&mut dyn Rule> {
        if self.rule.is_none() {
            self.rule = Some(match &self.plan {
                Plan::AdamW(options) => Box::new(optim::AdamW::new(model, options)?),
                Plan::Sgd(options) => Box::new(optim::Sgd::new(model, options)?),
            });
        }
        match &mut self.rule {
            Some(rule) => Ok(&mut **rule),
            None => Err(Error::Internal("the optimizer was not built".to_owned())),
        }
    }
}

/// AdamW or SGD of one model; `src/optimizer.ts` has its public faces.
#[napi]
pub struct Optimizer {
    inner: Arc<Exclusive<State>>,
    model: Arc<Exclusive<Model>>,
    lr: f64,
}

/// What a call on an optimizer holds: its model first, then itself.
pub struct Held {
    model: Guard<Model>,
    state: Guard<State>,
}

impl Held {
    /// Calls `work` with the model and the optimizer, both built.
    pub fn with<R>(&self, work: impl FnOnce(&mut Engine, &mut dyn Rule) -> Result<R>) -> Result<R> {
        self.model.with(|model| {
            let engine = model.engine()?;
            self.state.with(|state| work(engine, state.rule(engine)?))
        })
    }
}

type Call<T> = AsyncTask<Job<Held, T>>;

impl Optimizer {
    fn new(model: &Transformer, lr: f64, plan: Plan) -> Result<Self> {
        let lr = rate("lr", lr)?;
        Ok(Self {
            inner: Exclusive::new("the optimizer", State { plan, rule: None }),
            model: Arc::clone(model.exclusive()),
            lr,
        })
    }

    /// The leases of one call.
    pub fn acquire(&self) -> Result<Held> {
        Ok(Held { model: self.model.acquire()?, state: self.inner.acquire()? })
    }

    /// Whether it is `model`'s.
    pub fn belongs_to(&self, model: &Transformer) -> bool {
        Arc::ptr_eq(&self.model, model.exclusive())
    }

    fn call<T>(
        &self,
        work: impl FnOnce(&mut Engine, &mut dyn Rule) -> Result<T> + Send + 'static,
    ) -> napi::Result<Call<T>>
    where
        T: ToNapiValue + TypeName + Send + 'static,
    {
        let held = self.acquire().map_err(to_napi)?;
        Ok(spawn(held, |held| held.with(work)))
    }
}

#[napi]
impl Optimizer {
    /// AdamW of `model`.
    #[napi(factory)]
    pub fn adamw(model: &Transformer, options: AdamWOptions) -> napi::Result<Self> {
        adamw_plan(&options).and_then(|plan| Self::new(model, options.lr, plan)).map_err(to_napi)
    }

    /// Stochastic gradient descent of `model`.
    #[napi(factory)]
    pub fn sgd(model: &Transformer, options: SgdOptions) -> napi::Result<Self> {
        sgd_plan(&options).and_then(|plan| Self::new(model, options.lr, plan)).map_err(to_napi)
    }

    /// Scales the gradients to a global norm of at most `max_norm`; gives the norm before, where it is read.
    #[napi(ts_return_type = "Promise<number | null>")]
    pub fn clip_grad_norm(&self, max_norm: f64, read: bool) -> napi::Result<Call<Option<f64>>> {
        let max_norm = rate("maxNorm", max_norm).map_err(to_napi)?;
        self.call(move |model, rule| {
            if read {
                rule.clip_grad_norm(model, max_norm).map(Some)
            } else {
                rule.queue_clip(model, max_norm).map(|()| None)
            }
        })
    }

    /// Updates the weights and clears the gradients.
    #[napi(ts_return_type = "Promise<void>")]
    pub fn step(&self, lr: Option<f64>) -> napi::Result<Call<()>> {
        let lr = rate("lr", lr.unwrap_or(self.lr)).map_err(to_napi)?;
        self.call(move |model, rule| rule.step(model, lr))
    }

    /// Frees its state, now or when the call under way ends.
    #[napi]
    pub fn close(&self) {
        self.inner.close();
    }
}

fn pair(name: &str, values: &[f64]) -> Result<(f64, f64)> {
    match values {
        &[first, second] if [first, second].iter().all(|b| (0.0..1.0).contains(b)) => {
            Ok((first, second))
        }
        _ => Err(Error::argument(format!(
            "{name} is {values:?}; it must be two numbers from 0 to below 1"
        ))),
    }
}

fn optional_rate(name: &str, value: Option<f64>) -> Result<Option<f64>> {
    value.map(|value| rate(name, value)).transpose()
}

fn adamw_plan(options: &AdamWOptions) -> Result<Plan> {
    let groups = options.groups.iter().map(|group| {
        Ok(GroupOptions {
            pattern: group.pattern.clone(),
            lr: optional_rate("lr", group.lr)?,
            betas: group.betas.as_deref().map(|betas| pair("betas", betas)).transpose()?,
            eps: optional_rate("eps", group.eps)?,
            weight_decay: optional_rate("weightDecay", group.weight_decay)?,
        })
    });
    Ok(Plan::AdamW(optim::AdamWOptions {
        betas: pair("betas", &options.betas)?,
        eps: rate("eps", options.eps)?,
        weight_decay: rate("weightDecay", options.weight_decay)?,
        groups: groups.collect::<Result<_>>()?,
    }))
}

fn sgd_plan(options: &SgdOptions) -> Result<Plan> {
    let groups = options.groups.iter().map(|group| {
        Ok(GroupOptions {
            pattern: group.pattern.clone(),
            lr: optional_rate("lr", group.lr)?,
            weight_decay: optional_rate("weightDecay", group.weight_decay)?,
            ..GroupOptions::default()
        })
    });
    Ok(Plan::Sgd(optim::SgdOptions {
        weight_decay: rate("weightDecay", options.weight_decay)?,
        constant: options.constant,
        groups: groups.collect::<Result<_>>()?,
    }))
}
