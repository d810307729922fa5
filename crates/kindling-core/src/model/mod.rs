//! The model: a decoder-only Transformer of Llama's family, forward and backward written out over buffers allocated once.

mod activations;
mod backward;
mod forward;
mod gradient_norm;
mod init;
mod params;
mod state_dict;
mod transformer;

pub use activations::Activations;
pub(crate) use forward::Context as PassContext;
pub use params::{BlockRanges, Layout, Parameter};
pub use state_dict::NamedTensor;
pub(crate) use state_dict::match_tensors;
pub use transformer::Transformer;

/// Added to the mean square in every `RMSNorm`.
pub const NORM_EPS: f32 = 1e-5;
