//! Runs two pieces of lock-free code under loom: how the pool hands jobs to its workers, and the
//! write-once slots that the tokenizer's threads share.

#[allow(dead_code, reason = "the engine uses all of it")]
#[path = "../../src/pool.rs"]
mod pool;
#[path = "../../src/sync.rs"]
mod sync;
#[allow(dead_code, reason = "the engine uses all of it")]
#[path = "../../src/tokenizer/encode/cache/write_once.rs"]
mod write_once;

/// Stands in for the engine's module next to `write_once`.
mod huge_page_table {
    /// The engine's trait of this name, without its items.
    ///
    /// # Safety
    /// As there.
    pub unsafe trait SharedZeroable: Sync {}
}

#[cfg(test)]
mod tests {
    use loom::cell::UnsafeCell;
    use loom::sync::Arc;
    use loom::thread;

    use super::pool::Pool;
    use super::write_once::{FREE, WriteOnceSlot};

    /// Times that a model preempts a thread that could go on. With fewer, loom misses lost wake-ups
    /// that were planted; with more, it takes hours.
    const PREEMPTIONS: usize = 3;

    /// The results of tasks. They are not atomic, so that loom reports concurrent accesses.
    struct Results([UnsafeCell<u32>; 2]);

    // SAFETY: loom fails a model in which two threads access a cell at the same time.
    unsafe impl Sync for Results {}

    impl Results {
        fn add(&self, task: usize) {
            // SAFETY: as above.
            self.0[task].with_mut(|count| unsafe { *count += 1 });
        }

        fn count(&self, task: usize) -> u32 {
            // SAFETY: as above.
            self.0[task].with(|count| unsafe { *count })
        }
    }

    #[test]
    fn every_task_runs_once_before_its_job_returns_and_the_pool_ends() {
        let mut model = loom::model::Builder::new();
        model.preemption_bound = Some(PREEMPTIONS);
        model.check(|| {
            let pool = Pool::new(2);
            for _ in 0..2 {
                let results = Results(std::array::from_fn(|_| UnsafeCell::new(0)));
                pool.run(2, |task| results.add(task));
                assert_eq!([results.count(0), results.count(1)], [1, 1]);
            }
        });
    }

    const WORDS: usize = 3;
    type Slot = WriteOnceSlot<WORDS>;

    /// Returns the words of the entry with this tag.
    fn words(tag: u64) -> [u64; WORDS] {
        [10 * tag, 10 * tag + 1, 10 * tag + 2]
    }

    fn fill(slot: &Slot, tag: u64) -> bool {
        slot.fill(tag, words(tag).into_iter())
    }

    /// Reads as the shared cache does: the tag, then the words if it is the tag of an entry.
    fn read(slot: &Slot) -> u64 {
        let tag = slot.tag();
        if tag == 1 || tag == 2 {
            assert_eq!(std::array::from_fn(|index| slot.word(index)), words(tag));
        }
        tag
    }

    #[test]
    fn a_reader_sees_all_words_of_an_entry_or_none() {
        loom::model(|| {
            let slot = Arc::new(Slot::free());
            let writer = thread::spawn({
                let slot = Arc::clone(&slot);
                move || assert!(fill(&slot, 1))
            });
            // An entry that was seen once stays.
            let first = read(&slot);
            let second = read(&slot);
            assert!(first != 1 || second == 1, "{first} {second}");
            writer.join().unwrap();
            assert_eq!(read(&slot), 1);
        });
    }

    #[test]
    fn of_two_writers_one_fills_the_slot_and_readers_see_only_its_words() {
        loom::model(|| {
            let slot = Arc::new(Slot::free());
            let writers = [1, 2].map(|tag| {
                let slot = Arc::clone(&slot);
                thread::spawn(move || fill(&slot, tag))
            });
            assert!(slot.is_free() || slot.tag() != FREE);
            read(&slot);
            let filled = writers.map(|writer| writer.join().unwrap());
            assert!(filled[0] != filled[1], "{filled:?}");
            assert_eq!(read(&slot), if filled[0] { 1 } else { 2 });
        });
    }
}
