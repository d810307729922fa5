//! Names of the files of a checkpoint other than state.json.

pub(super) const MODEL: &str = "model.safetensors";
pub(super) const OPTIMIZER: &str = "optimizer.safetensors";
/// The algorithms chosen for matrix products on a CUDA device. With them a resumed run continues
/// bit for bit.
pub(super) const PRODUCTS: &str = "cuda_products.json";
