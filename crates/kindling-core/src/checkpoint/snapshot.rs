//! A copy of a model and its optimizer in host memory, from which a checkpoint is written while
//! training goes on.

use std::path::Path;

use serde::Serialize;

use super::state::State;
use super::write::Contents;
use super::{algorithms_of, new_state};
use crate::buffer::Buffer;
use crate::model::{Parameter, Transformer};
use crate::optim::Optimizer;
use crate::progress::silent;
use crate::{Error, Result, available_memory};

/// The contents of a checkpoint at the moment the snapshot was taken.
#[derive(Debug)]
pub struct Snapshot {
    parameters: Vec<Parameter>,
    weights: Buffer,
    moments: Option<Vec<(&'static str, Buffer)>>,
    products: Option<String>,
    state: State,
}

impl Snapshot {
    /// Copies the weights and the optimizer's state to host memory, after waiting for queued work.
    /// Returns `None` if there is not enough memory for a copy.
    ///
    /// # Errors
    /// Returns `ERR_NON_FINITE` if a queued update was skipped, `ERR_DEVICE` if the device failed.
    pub fn take(
        model: &Transformer,
        optimizer: Option<&dyn Optimizer>,
        iteration: u64,
        run: impl Serialize,
    ) -> Result<Option<Self>> {
        let state = new_state(model, optimizer, iteration, run)?;
        Self::take_within(available_memory::available(), model, optimizer, state)
    }

    fn take_within(
        available: Option<u64>,
        model: &Transformer,
        optimizer: Option<&dyn Optimizer>,
        state: State,
    ) -> Result<Option<Self>> {
        let buffers = optimizer.map(|optimizer| optimizer.buffers());
        let copies = 1 + buffers.as_ref().map_or(0, Vec::len);
        let bytes = (copies * model.num_parameters() * size_of::<f32>()) as u64;
        // A quarter more than the copy must be free, for what training and writing allocate
        // meanwhile.
        if available.is_some_and(|available| bytes + bytes / 4 > available) {
            return Ok(None);
        }
        let pool = &model.device().host().pool;
        let copy = || {
            let weights = model.current_weights()?.to_host(pool)?;
            let moments = buffers.map(|buffers| {
                let copies = buffers.into_iter().map(|(prefix, b)| Ok((prefix, b.to_host(pool)?)));
                copies.collect::<Result<_>>()
            });
            Ok::<_, Error>((weights, moments.transpose()?))
        };
        match copy() {
            Ok((weights, moments)) => Ok(Some(Self {
                parameters: model.parameters().to_vec(),
                weights,
                moments,
                products: algorithms_of(model),
                state,
            })),
            Err(Error::OutOfMemory { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Writes the folder `path`, replacing an existing one, with the bytes that `save` would have
    /// written when the snapshot was taken.
    ///
    /// # Errors
    /// As `save`.
    pub fn write(&self, path: &Path) -> Result<()> {
        let moments = self.moments.as_ref();
        let contents = Contents {
            parameters: &self.parameters,
            weights: &self.weights,
            moments: moments.map(|m| m.iter().map(|(prefix, flat)| (*prefix, flat)).collect()),
            products: self.products.as_deref(),
            state: self.state.clone(),
        };
        contents.write(path, &mut silent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::save;
    use crate::config::ModelConfig;
    use crate::device::Device;
    use crate::optim::{AdamW, AdamWOptions, Sgd, SgdOptions};
    use crate::test_support::{Folder, names};

    fn model() -> Transformer {
        let config = ModelConfig {
            vocab_size: 300,
            d_model: 64,
            num_heads: 4,
            num_kv_heads: 2,
            d_ff: 96,
            num_layers: 2,
            max_seq_length: 16,
            theta: 10_000.0,
            qkv_bias: true,
            ..ModelConfig::PLAIN
        };
        Transformer::new(config, Device::cpu(3), 1).unwrap()
    }

    fn train(model: &mut Transformer, optimizer: &mut dyn Optimizer) {
        let (x, targets): (Vec<_>, Vec<_>) = (0..16).map(|i| (i, i as i32 + 1)).unzip();
        model.forward_backward(&x, &targets, 1, 16, 1.0).unwrap();
        optimizer.step(model, 1e-2).unwrap();
    }

    fn optimizers(model: &Transformer) -> Vec<Box<dyn Optimizer>> {
        let adamw =
            AdamWOptions { betas: (0.9, 0.95), eps: 1e-8, weight_decay: 0.1, groups: Vec::new() };
        let sgd = SgdOptions { weight_decay: 0.0, constant: false, groups: Vec::new() };
        let adamw = AdamW::new(model, &adamw).unwrap();
        vec![Box::new(adamw), Box::new(Sgd::new(model, &sgd).unwrap())]
    }

    #[test]
    fn a_snapshot_written_after_more_steps_equals_a_save_before_them_byte_for_byte() {
        let mut model = model();
        for mut optimizer in optimizers(&model) {
            train(&mut model, &mut *optimizer);
            let root = Folder::new();
            let (saved, written) = (root.path().join("saved"), root.path().join("written"));
            let run = serde_json::json!({ "loss_sum": 0.1 });
            save(&saved, &model, Some(&*optimizer), 7, &run).unwrap();
            let snapshot = Snapshot::take(&model, Some(&*optimizer), 7, &run).unwrap().unwrap();
            train(&mut model, &mut *optimizer);
            snapshot.write(&written).unwrap();
            assert_eq!(names(&written), names(&saved));
            for name in names(&saved) {
                let read = |folder: &Path| std::fs::read(folder.join(&name)).unwrap();
                assert!(read(&written) == read(&saved), "{name}");
            }
        }
    }

    #[test]
    fn no_copy_is_taken_without_room_for_it() {
        let model = model();
        let [adamw, _] = &optimizers(&model)[..] else { panic!() };
        let bytes = 3 * 4 * model.num_parameters() as u64;
        let take = |available| {
            let state = new_state(&model, Some(&**adamw), 1, ()).unwrap();
            Snapshot::take_within(available, &model, Some(&**adamw), state).unwrap()
        };
        assert!(take(Some(bytes)).is_none());
        assert!(take(Some(2 * bytes)).is_some());
        assert!(take(None).is_some());
    }
}
