//! Input: state.json of a checkpoint whose other files are intact.
#![no_main]

use std::cell::RefCell;
use std::path::PathBuf;

use kindling_core::checkpoint;
use kindling_core::model::Transformer;
use kindling_core::optim::{AdamW, AdamWOptions};
use kindling_fuzz::{empty_folder, file, small_model, sound};

struct Saved {
    folder: PathBuf,
    model: Transformer,
    optimizer: AdamW,
}

impl Saved {
    fn new() -> Self {
        let model = small_model();
        let options =
            AdamWOptions { betas: (0.9, 0.95), eps: 1e-8, weight_decay: 0.0, groups: Vec::new() };
        let optimizer = AdamW::new(&model, &options).expect("an optimizer");
        let folder = empty_folder("checkpoint").join("step-00000007");
        let run = serde_json::json!({ "loss_sum": 1.5, "loss_count": 1 });
        checkpoint::save(&folder, &model, Some(&optimizer), 7, run).expect("a checkpoint");
        Self { folder, model, optimizer }
    }
}

thread_local! {
    static SAVED: RefCell<Saved> = RefCell::new(Saved::new());
}

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    SAVED.with_borrow_mut(|Saved { folder, model, optimizer }| {
        file(folder, "state.json", data);
        let state = sound(checkpoint::read_state(folder));
        let loaded = sound(checkpoint::load(folder, model, Some(optimizer)));
        assert!(loaded.is_none() || state.is_some());
    });
});
