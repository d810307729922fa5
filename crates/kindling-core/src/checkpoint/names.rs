//! The files of a checkpoint beside state.json.

pub(super) const MODEL: &str = "model.safetensors";
pub(super) const OPTIMIZER: &str = "optimizer.safetensors";
/// Algorithms of the matrix products, with which a resumed run has the same bits.
pub(super) const PRODUCTS: &str = "cuda_products.json";
