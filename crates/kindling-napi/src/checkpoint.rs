//! Saves and loads checkpoints.

use std::path::PathBuf;

use kindling_core::{Error, checkpoint};
use napi::bindgen_prelude::AsyncTask;
use serde_json::value::RawValue;

use crate::error::to_napi;
use crate::exclusive::Guard;
use crate::model::{Model, Transformer};
use crate::monitor::Monitor;
use crate::optimizer::{Optimizer, OptimizerGuards};
use crate::options::integer;
use crate::task::{Job, spawn};

/// Writes the checkpoint folder `path`, replacing an existing one.
///
/// `iteration` is the number of updates made so far. `extra` is JSON text, stored in state.json as
/// it is. Fails with `ERR_DISK_FULL`, `ERR_NOT_WRITABLE` or `ERR_IO`; `path` is then unchanged.
#[napi(catch_unwind, ts_return_type = "Promise<void>")]
pub fn save_checkpoint(
    path: String,
    model: &Transformer,
    optimizer: &Optimizer,
    iteration: f64,
    extra: String,
) -> napi::Result<AsyncTask<Job<OptimizerGuards, ()>>> {
    let (guards, iteration, extra) =
        arguments(model, optimizer, iteration, extra).map_err(to_napi)?;
    Ok(spawn(guards, move |guards| {
        guards.with(|model, optimizer| {
            checkpoint::save(&PathBuf::from(path), model, Some(optimizer), iteration, extra)
        })
    }))
}

/// A copy of a model and its optimizer in host memory. The public class is `Snapshot` in
/// `src/checkpoint.ts`.
#[napi]
pub struct CheckpointSnapshot {
    /// `None` once it is being written, or closed.
    inner: Option<checkpoint::Snapshot>,
}

/// Copies the model and the optimizer to host memory. Returns null if there is not enough memory
/// for the copy. `iteration` and `extra` are as in `saveCheckpoint`.
#[napi(catch_unwind, ts_return_type = "Promise<CheckpointSnapshot | null>")]
pub fn snapshot_checkpoint(
    model: &Transformer,
    optimizer: &Optimizer,
    iteration: f64,
    extra: String,
) -> napi::Result<AsyncTask<Job<OptimizerGuards, Option<CheckpointSnapshot>>>> {
    let (guards, iteration, extra) =
        arguments(model, optimizer, iteration, extra).map_err(to_napi)?;
    Ok(spawn(guards, move |guards| {
        guards.with(|model, optimizer| {
            let taken = checkpoint::Snapshot::take(model, Some(optimizer), iteration, extra)?;
            Ok(taken.map(|snapshot| CheckpointSnapshot { inner: Some(snapshot) }))
        })
    }))
}

#[napi]
impl CheckpointSnapshot {
    /// Writes the checkpoint folder `path` as `saveCheckpoint` does, and frees the copy. A second
    /// call fails with `ERR_CLOSED`.
    #[napi(catch_unwind, ts_return_type = "Promise<void>")]
    pub fn write(&mut self, path: String) -> napi::Result<AsyncTask<Job<(), ()>>> {
        let snapshot = self.inner.take().ok_or_else(|| to_napi(Error::Closed("the snapshot")))?;
        Ok(spawn((), move |()| snapshot.write(&PathBuf::from(path))))
    }

    /// Frees the copy, unless it is being written.
    #[napi(catch_unwind)]
    pub fn close(&mut self) {
        self.inner = None;
    }
}

/// Checks the arguments of a save. `extra` stays text, since parsing its numbers could round them.
fn arguments(
    model: &Transformer,
    optimizer: &Optimizer,
    iteration: f64,
    extra: String,
) -> kindling_core::Result<(OptimizerGuards, u64, Box<RawValue>)> {
    let extra = RawValue::from_string(extra)
        .map_err(|error| Error::argument(format!("extra is not JSON: {error}")))?;
    let iteration = integer("iteration", iteration)?;
    Ok((optimizer.acquire_with(model)?, iteration, extra))
}

/// Reads the weights of the checkpoint folder `path` into the model, without optimizer state.
/// Returns the iteration passed to `saveCheckpoint`.
///
/// Fails with `ERR_NOT_FOUND`, `ERR_INVALID_CHECKPOINT` if a file is damaged, or
/// `ERR_CHECKPOINT_MISMATCH` if the model has another shape; the model is then unchanged.
#[napi(catch_unwind, ts_return_type = "Promise<number>")]
pub fn load_weights(
    path: String,
    model: &Transformer,
    monitor: &Monitor,
) -> napi::Result<AsyncTask<Job<Guard<Model>, f64>>> {
    let mut progress = monitor.progress();
    Ok(spawn(model.acquire()?, move |guard| {
        let path = PathBuf::from(path);
        let state = guard.with(|model| {
            model.load(|engine| checkpoint::load_reporting(&path, engine, None, &mut progress))
        })?;
        Ok(state.iteration as f64)
    }))
}

/// Reads the checkpoint folder `path` into the model and its optimizer. Returns the iteration
/// passed to `saveCheckpoint`. Fails as `loadWeights` does; the model and the optimizer are then
/// unchanged.
#[napi(catch_unwind, ts_return_type = "Promise<number>")]
pub fn load_checkpoint(
    path: String,
    model: &Transformer,
    optimizer: &Optimizer,
) -> napi::Result<AsyncTask<Job<OptimizerGuards, f64>>> {
    Ok(spawn(optimizer.acquire_with(model).map_err(to_napi)?, move |guards| {
        let path = PathBuf::from(path);
        let state =
            guards.load(|model, optimizer| checkpoint::load(&path, model, Some(optimizer)))?;
        Ok(state.iteration as f64)
    }))
}
