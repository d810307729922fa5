//! Scratch memory that stays with its thread, so that a training step allocates nothing.

use std::cell::RefCell;

thread_local! {
    static SCRATCH: RefCell<Vec<Vec<f32>>> = const { RefCell::new(Vec::new()) };
}

/// Calls `work` with `len` zeros of scratch memory. Calls may be nested.
pub(crate) fn with_scratch<R>(len: usize, work: impl FnOnce(&mut [f32]) -> R) -> R {
    let mut memory = SCRATCH.with(|s| s.borrow_mut().pop()).unwrap_or_default();
    memory.clear();
    memory.resize(len, 0.0);
    let result = work(&mut memory);
    SCRATCH.with(|s| s.borrow_mut().push(memory));
    result
}

/// Calls `work` with `len` elements of scratch memory that starts on a cache line and holds
/// whatever was there before: for work that writes before it reads. Calls may be nested.
pub(crate) fn with_dirty_scratch<R>(len: usize, work: impl FnOnce(&mut [f32]) -> R) -> R {
    const LINE: usize = 64;
    let mut memory = SCRATCH.with(|s| s.borrow_mut().pop()).unwrap_or_default();
    let room = len + LINE / size_of::<f32>();
    if memory.len() < room {
        memory.resize(room, 0.0);
    }
    let start = memory.as_ptr().align_offset(LINE).min(room - len);
    let result = work(&mut memory[start..start + len]);
    SCRATCH.with(|s| s.borrow_mut().push(memory));
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scratch_is_zero_even_when_nested_and_reused() {
        for _ in 0..3 {
            with_scratch(10, |outer| {
                with_scratch(5, |inner| {
                    assert!(inner.iter().all(|x| *x == 0.0));
                    inner.fill(1.0);
                });
                assert!(outer.iter().all(|x| *x == 0.0));
                outer.fill(2.0);
            });
        }
    }
}
