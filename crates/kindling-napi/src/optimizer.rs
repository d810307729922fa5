//! Optimizers. The engine is built by the first call that needs it, as the model's may not exist
//! earlier.

use std::sync::Arc;

use kindling_core::model::Transformer as EngineModel;
use kindling_core::optim::{self, GroupOptions, Optimizer as Engine};
use kindling_core::{Error, Result};
use napi::bindgen_prelude::{AsyncTask, ToNapiValue, TypeName};

use crate::error::to_napi;
use crate::exclusive::{Exclusive, Guard};
use crate::model::{Model, Transformer};
use crate::options::rate;
use crate::task::{Job, spawn};

/// Settings of one parameter group of AdamW, as documented in `src/optimizer.ts`.
#[napi(object)]
pub struct AdamWGroup {
    pub pattern: String,
    pub lr: Option<f64>,
    pub betas: Option<Vec<f64>>,
    pub eps: Option<f64>,
    pub weight_decay: Option<f64>,
}

/// Options of AdamW, as documented in `src/optimizer.ts`, with the defaults filled in.
#[napi(object)]
pub struct AdamWOptions {
    pub lr: f64,
    pub betas: Vec<f64>,
    pub eps: f64,
    pub weight_decay: f64,
    pub groups: Vec<AdamWGroup>,
}

/// Settings of one parameter group of SGD, as documented in `src/optimizer.ts`.
#[napi(object)]
pub struct SgdGroup {
    pub pattern: String,
    pub lr: Option<f64>,
    pub weight_decay: Option<f64>,
}

/// Options of SGD, as documented in `src/optimizer.ts`, with the defaults filled in.
#[napi(object)]
pub struct SgdOptions {
    pub lr: f64,
    pub weight_decay: f64,
    /// Keeps the learning rate constant (`decay: 'none'`) instead of dividing it by sqrt(step + 1).
    pub constant: bool,
    pub groups: Vec<SgdGroup>,
}

/// Checked options, from which the engine is built.
enum OptimizerRecipe {
    AdamW(optim::AdamWOptions),
    Sgd(optim::SgdOptions),
}

/// An optimizer whose engine may not be built yet.
pub struct State {
    recipe: OptimizerRecipe,
    engine: Option<Box<dyn Engine + Send>>,
}

impl State {
    /// Returns the engine, building it for `model` on first use.
    fn engine(&mut self, model: &EngineModel) -> Result<&mut dyn Engine> {
        if self.engine.is_none() {
            self.engine = Some(match &self.recipe {
                OptimizerRecipe::AdamW(options) => Box::new(optim::AdamW::new(model, options)?),
                OptimizerRecipe::Sgd(options) => Box::new(optim::Sgd::new(model, options)?),
            });
        }
        match &mut self.engine {
            Some(engine) => Ok(&mut **engine),
            None => Err(Error::Internal("the optimizer was not built".to_owned())),
        }
    }
}

/// AdamW or SGD of one model. The public classes are in `src/optimizer.ts`.
#[napi]
pub struct Optimizer {
    inner: Arc<Exclusive<State>>,
    model: Arc<Exclusive<Model>>,
    lr: f64,
}

/// The guards that a call on an optimizer holds, in the order in which they are acquired.
pub struct OptimizerGuards {
    model: Guard<Model>,
    state: Guard<State>,
}

impl OptimizerGuards {
    /// Runs `work` on the engines of the model and the optimizer.
    pub fn with<R>(
        &self,
        work: impl FnOnce(&mut EngineModel, &mut dyn Engine) -> Result<R>,
    ) -> Result<R> {
        self.model.with(|model| {
            let model = model.engine()?;
            self.state.with(|state| work(model, state.engine(model)?))
        })
    }

    /// Like `with`, for work that replaces every weight and the optimizer's state.
    pub fn load<R>(
        &self,
        work: impl FnOnce(&mut EngineModel, &mut dyn Engine) -> Result<R>,
    ) -> Result<R> {
        self.model.with(|model| {
            model.load(|model| self.state.with(|state| work(model, state.engine(model)?)))
        })
    }
}

type Call<T> = AsyncTask<Job<OptimizerGuards, T>>;

impl Optimizer {
    fn new(model: &Transformer, lr: f64, recipe: OptimizerRecipe) -> Result<Self> {
        let lr = rate("lr", lr)?;
        Ok(Self {
            inner: Exclusive::new("the optimizer", State { recipe, engine: None }),
            model: Arc::clone(model.exclusive()),
            lr,
        })
    }

    /// Reserves the model and the optimizer for one call.
    pub fn acquire(&self) -> Result<OptimizerGuards> {
        Ok(OptimizerGuards { model: self.model.acquire()?, state: self.inner.acquire()? })
    }

    /// Reserves `model` and the optimizer for one call.
    ///
    /// # Errors
    /// Returns `ERR_INVALID_ARGUMENT` if the optimizer was made for another model, and the errors of
    /// `acquire`.
    pub fn acquire_with(&self, model: &Transformer) -> Result<OptimizerGuards> {
        self.belongs_to(model)?;
        self.acquire()
    }

    fn belongs_to(&self, model: &Transformer) -> Result<()> {
        if Arc::ptr_eq(&self.model, model.exclusive()) {
            return Ok(());
        }
        Err(Error::argument(
            "the optimizer belongs to another model; use one that was made for this model",
        ))
    }

    fn call<T>(
        &self,
        work: impl FnOnce(&mut EngineModel, &mut dyn Engine) -> Result<T> + Send + 'static,
    ) -> napi::Result<Call<T>>
    where
        T: ToNapiValue + TypeName + Send + 'static,
    {
        let guards = self.acquire().map_err(to_napi)?;
        Ok(spawn(guards, |guards| guards.with(work)))
    }
}

#[napi]
impl Optimizer {
    /// Creates an AdamW optimizer of `model`. Its moments are allocated, and the patterns of its
    /// groups matched, by the first call.
    #[napi(catch_unwind, factory)]
    pub fn adamw(model: &Transformer, options: AdamWOptions) -> napi::Result<Self> {
        adamw_recipe(&options)
            .and_then(|recipe| Self::new(model, options.lr, recipe))
            .map_err(to_napi)
    }

    /// Creates an SGD optimizer of `model`.
    #[napi(catch_unwind, factory)]
    pub fn sgd(model: &Transformer, options: SgdOptions) -> napi::Result<Self> {
        sgd_recipe(&options)
            .and_then(|recipe| Self::new(model, options.lr, recipe))
            .map_err(to_napi)
    }

    /// Scales the gradients so that their global L2 norm is at most `maxNorm`; 0 disables clipping.
    /// Returns the norm before scaling. Without `read` nothing waits for the device, and the result
    /// is null.
    ///
    /// Fails with `ERR_NON_FINITE` if the norm is NaN or infinite. On a CUDA device, without
    /// `read`, the next call that reads from the device reports it.
    #[napi(catch_unwind, ts_return_type = "Promise<number | null>")]
    pub fn clip_grad_norm(&self, max_norm: f64, read: bool) -> napi::Result<Call<Option<f64>>> {
        let max_norm = rate("maxNorm", max_norm).map_err(to_napi)?;
        self.call(move |model, optimizer| {
            if read {
                optimizer.clip_grad_norm(model, max_norm).map(Some)
            } else {
                optimizer.queue_clip(model, max_norm).map(|()| None)
            }
        })
    }

    /// Updates the weights at learning rate `lr`, by default that of the options, and sets the
    /// gradients to zero.
    ///
    /// Fails with `ERR_NON_FINITE` if a gradient is NaN or infinite, and no weight changes. On a
    /// CUDA device the update is then skipped, and the next call that reads from the device reports
    /// it.
    #[napi(catch_unwind, ts_return_type = "Promise<void>")]
    pub fn step(&self, lr: Option<f64>) -> napi::Result<Call<()>> {
        let lr = rate("lr", lr.unwrap_or(self.lr)).map_err(to_napi)?;
        self.call(move |model, optimizer| optimizer.step(model, lr))
    }

    /// Checks that the optimizer was made for `model`. Fails with `ERR_INVALID_ARGUMENT` if not.
    #[napi(catch_unwind)]
    pub fn check_model(&self, model: &Transformer) -> napi::Result<()> {
        self.belongs_to(model).map_err(to_napi)
    }

    /// Frees the optimizer, at once or when the pending call settles. Never waits, and may be
    /// called again.
    #[napi(catch_unwind)]
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
            "{name} is {values:?}; it must be two numbers of at least 0 and below 1"
        ))),
    }
}

fn optional_rate(name: &str, value: Option<f64>) -> Result<Option<f64>> {
    value.map(|value| rate(name, value)).transpose()
}

fn adamw_recipe(options: &AdamWOptions) -> Result<OptimizerRecipe> {
    let groups = options.groups.iter().map(|group| {
        Ok(GroupOptions {
            pattern: group.pattern.clone(),
            lr: optional_rate("lr", group.lr)?,
            betas: group.betas.as_deref().map(|betas| pair("betas", betas)).transpose()?,
            eps: optional_rate("eps", group.eps)?,
            weight_decay: optional_rate("weightDecay", group.weight_decay)?,
        })
    });
    Ok(OptimizerRecipe::AdamW(optim::AdamWOptions {
        betas: pair("betas", &options.betas)?,
        eps: rate("eps", options.eps)?,
        weight_decay: rate("weightDecay", options.weight_decay)?,
        groups: groups.collect::<Result<_>>()?,
    }))
}

fn sgd_recipe(options: &SgdOptions) -> Result<OptimizerRecipe> {
    let groups = options.groups.iter().map(|group| {
        Ok(GroupOptions {
            pattern: group.pattern.clone(),
            lr: optional_rate("lr", group.lr)?,
            weight_decay: optional_rate("weightDecay", group.weight_decay)?,
            ..GroupOptions::default()
        })
    });
    Ok(OptimizerRecipe::Sgd(optim::SgdOptions {
        weight_decay: rate("weightDecay", options.weight_decay)?,
        constant: options.constant,
        groups: groups.collect::<Result<_>>()?,
    }))
}
