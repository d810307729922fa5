//! Tests of the memory that saving and loading a checkpoint take beyond the model and its
//! optimizer.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use kindling_core::checkpoint;
use kindling_core::config::ModelConfig;
use kindling_core::device::Device;
use kindling_core::model::Transformer;
use kindling_core::optim::{AdamW, AdamWOptions, Optimizer as _};

/// Counts the bytes in use, and their peak.
struct Counting;

static NOW: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call is passed on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let now = NOW.fetch_add(layout.size(), Relaxed) + layout.size();
        PEAK.fetch_max(now, Relaxed);
        // SAFETY: the caller's promise is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        NOW.fetch_sub(layout.size(), Relaxed);
        // SAFETY: the caller's promise is the same.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Returns the peak of the bytes in use during `work`, less those in use before it.
fn peak_of(work: impl FnOnce()) -> usize {
    let before = NOW.load(Relaxed);
    PEAK.store(before, Relaxed);
    work();
    PEAK.load(Relaxed) - before
}

#[test]
fn saving_and_loading_hold_a_few_copies_of_the_largest_tensor() {
    let config = ModelConfig {
        vocab_size: 1_000,
        d_model: 256,
        num_heads: 4,
        num_kv_heads: 4,
        d_ff: 700,
        num_layers: 16,
        max_seq_length: 16,
        theta: 10_000.0,
        ..ModelConfig::PLAIN
    };
    let mut model = Transformer::new(config, Device::cpu(1), 1).unwrap();
    let options =
        AdamWOptions { betas: (0.9, 0.95), eps: 1e-8, weight_decay: 0.0, groups: Vec::new() };
    let mut optimizer = AdamW::new(&model, &options).unwrap();
    let largest = model.parameters().iter().map(|p| 4 * p.range.len()).max().unwrap();
    let allowed = 2 * largest + (2 << 20);
    assert!(allowed * 4 < 4 * model.num_parameters() * 2, "a copy of the moments would pass");
    let path = std::env::temp_dir().join(format!("kindling-memory-{}", std::process::id()));
    let saving = peak_of(|| {
        checkpoint::save(&path, &model, Some(&optimizer), 1, serde_json::Value::Null).unwrap();
    });
    let before = (model.state_dict().unwrap(), optimizer.state(&model).unwrap());
    let loading = peak_of(|| {
        checkpoint::load(&path, &mut model, Some(&mut optimizer)).unwrap();
    });
    assert!((model.state_dict().unwrap(), optimizer.state(&model).unwrap()) == before);
    std::fs::remove_dir_all(&path).unwrap();
    assert!(saving < allowed && loading < allowed, "{saving}, {loading} of {allowed}");
}
