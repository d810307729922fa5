//! Saving and loading checkpoints.

use std::path::PathBuf;

use kindling_core::{Error, checkpoint};
use napi::bindgen_prelude::AsyncTask;

use crate::error::to_napi;
use crate::exclusive::Guard;
use crate::model::{Model, Transformer};
use crate::optimizer::{Optimizer, OptimizerGuards};
use crate::options::integer;
use crate::task::{Job, spawn};

/// Writes the checkpoint folder `path`. `extra` is JSON that is stored in state.json.
#[napi(catch_unwind, ts_return_type = "Promise<void>")]
pub fn save_checkpoint(
    path: String,
    model: &Transformer,
    optimizer: &Optimizer,
    iteration: f64,
    extra: String,
) -> napi::Result<AsyncTask<Job<OptimizerGuards, ()>>> {
    let (guards, iteration, extra) = (|| {
        let extra: serde_json::Value = serde_json::from_str(&extra)
            .map_err(|error| Error::argument(format!("extra is not JSON: {error}")))?;
        Ok((guards_of(model, optimizer)?, integer("iteration", iteration)?, extra))
    })()
    .map_err(to_napi)?;
    Ok(spawn(guards, move |guards| {
        guards.with(|model, optimizer| {
            checkpoint::save(&PathBuf::from(path), model, Some(optimizer), iteration, extra)
        })
    }))
}

/// The guards of a call with or without an optimizer.
pub enum LoadGuards {
    Both(OptimizerGuards),
    Model(Guard<Model>),
}

/// Reads the checkpoint folder `path` into the model and, if given, its optimizer. Returns the
/// iteration.
#[napi(catch_unwind, ts_return_type = "Promise<number>")]
pub fn load_checkpoint(
    path: String,
    model: &Transformer,
    optimizer: Option<&Optimizer>,
) -> napi::Result<AsyncTask<Job<LoadGuards, f64>>> {
    let guards = match optimizer {
        Some(optimizer) => LoadGuards::Both(guards_of(model, optimizer).map_err(to_napi)?),
        None => LoadGuards::Model(model.acquire()?),
    };
    Ok(spawn(guards, move |guards| {
        let path = PathBuf::from(path);
        let state = match guards {
            LoadGuards::Both(guards) => {
                guards.with(|model, optimizer| checkpoint::load(&path, model, Some(optimizer)))
            }
            LoadGuards::Model(guard) => {
                guard.with(|model| checkpoint::load(&path, model.engine()?, None))
            }
        }?;
        Ok(state.iteration as f64)
    }))
}

fn guards_of(model: &Transformer, optimizer: &Optimizer) -> kindling_core::Result<OptimizerGuards> {
    if optimizer.belongs_to(model) {
        optimizer.acquire()
    } else {
        Err(Error::argument(
            "the optimizer belongs to another model; use one that was made for this model",
        ))
    }
}
