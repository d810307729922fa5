//! Checkpoints on disk.

use std::path::PathBuf;

use kindling_core::{Error, checkpoint};
use napi::bindgen_prelude::AsyncTask;

use crate::error::to_napi;
use crate::exclusive::Guard;
use crate::model::{Model, Transformer};
use crate::optimizer::{Held, Optimizer};
use crate::options::integer;
use crate::task::{Job, spawn};

/// Writes the folder `path`; `extra` is a JSON object kept in state.json.
#[napi(ts_return_type = "Promise<void>")]
pub fn save_checkpoint(
    path: String,
    model: &Transformer,
    optimizer: &Optimizer,
    iteration: f64,
    extra: String,
) -> napi::Result<AsyncTask<Job<Held, ()>>> {
    let (held, iteration, extra) = (|| {
        let extra: serde_json::Value = serde_json::from_str(&extra)
            .map_err(|error| Error::argument(format!("extra is not JSON: {error}")))?;
        Ok((held(model, optimizer)?, integer("iteration", iteration)?, extra))
    })()
    .map_err(to_napi)?;
    Ok(spawn(held, move |held| {
        held.with(|model, optimizer| {
            checkpoint::save(&PathBuf::from(path), model, Some(optimizer), iteration, extra)
        })
    }))
}

/// Either what a call with an optimizer holds, or one without.
pub enum LoadHeld {
    /// The model and its optimizer.
    Both(Held),
    /// The model alone.
    Model(Guard<Model>),
}

/// Reads the folder `path` into the model and, if given, its optimizer; gives the iteration.
#[napi(ts_return_type = "Promise<number>")]
pub fn load_checkpoint(
    path: String,
    model: &Transformer,
    optimizer: Option<&Optimizer>,
) -> napi::Result<AsyncTask<Job<LoadHeld, f64>>> {
    let held = match optimizer {
        Some(optimizer) => LoadHeld::Both(held(model, optimizer).map_err(to_napi)?),
        None => LoadHeld::Model(model.acquire()?),
    };
    Ok(spawn(held, move |held| {
        let path = PathBuf::from(path);
        let state = match held {
            LoadHeld::Both(held) => {
                held.with(|model, optimizer| checkpoint::load(&path, model, Some(optimizer)))
            }
            LoadHeld::Model(lease) => {
                lease.with(|model| checkpoint::load(&path, model.engine()?, None))
            }
        }?;
        Ok(state.iteration as f64)
    }))
}

fn held(model: &Transformer, optimizer: &Optimizer) -> kindling_core::Result<Held> {
    if optimizer.belongs_to(model) {
        optimizer.acquire()
    } else {
        Err(Error::argument("the optimizer is another model's; give the one made with this model"))
    }
}
