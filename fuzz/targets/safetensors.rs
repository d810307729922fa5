//! Input: model.safetensors of a checkpoint without checksums, as old versions wrote it.
#![no_main]

use std::cell::RefCell;

use kindling_core::checkpoint;
use kindling_core::model::Transformer;
use kindling_fuzz::{empty_folder, file, small_config, small_model, sound};

thread_local! {
    static MODEL: RefCell<Transformer> = RefCell::new(small_model());
}

/// Returns the bits of all weights, which are comparable even if some are NaN.
fn bits(model: &Transformer) -> Vec<u32> {
    let tensors = model.state_dict().expect("the weights");
    tensors.iter().flat_map(|tensor| &tensor.data).map(|weight| weight.to_bits()).collect()
}

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let folder = empty_folder("checkpoint");
    let state = serde_json::json!({
        "format_version": 1, "iteration": 7, "model": small_config(), "optimizer": null,
    });
    file(&folder, "state.json", state.to_string().as_bytes());
    file(&folder, "model.safetensors", data);
    MODEL.with_borrow_mut(|model| {
        let before = bits(model);
        if sound(checkpoint::load(&folder, model, None)).is_none() {
            assert!(bits(model) == before, "loaded in part");
        }
    });
});
