//! The model: a decoder-only Transformer of the Llama family. The forward and backward passes are
//! written out by hand, over buffers that are reused from batch to batch.

mod activations;
mod anomaly;
mod backward;
#[cfg(test)]
mod cached_logits_tests;
mod custom_loss;
mod finiteness;
mod forward;
mod frozen;
mod gradient_norm;
mod gradients;
mod init;
mod kv_cache;
mod logits;
mod memory_plan;
mod normed_projection;
mod params;
mod pass;
mod state_dict;
mod transformer;
mod update;

pub use activations::Activations;
pub use frozen::{Frozen, matching};
pub(crate) use kv_cache::{CacheStep, KvCache};
pub use memory_plan::{MemoryPlan, PlannedDevice, PlannedMemory};
pub use params::{BlockRanges, Layout, Parameter};
pub use state_dict::NamedTensor;
pub(crate) use state_dict::{Described, match_tensors};
pub use transformer::Transformer;
pub(crate) use update::{CudaUpdate, Update};
