//! The batches of a run, prefetched on a thread.

use std::sync::mpsc::{Receiver, TryRecvError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

use super::batch::Batch;
use super::mixture::{BatchIndex, LoaderOptions, Mixture};
use super::token_store::TokenStore;
use crate::error::IoAction;
use crate::{Error, Result};

const THREAD_NAME: &str = "kindling-batches";

/// Loads the batches of a run, and prefetches the next ones.
#[derive(Debug)]
pub struct BatchLoader {
    mixture: Arc<Mixture>,
    prefetcher: Mutex<Option<Prefetcher>>,
}

/// A thread that prefetches batches in order.
#[derive(Debug)]
struct Prefetcher {
    /// The index of the batch that it sends next.
    next: BatchIndex,
    batches: Receiver<Result<Batch>>,
}

impl BatchLoader {
    /// Creates a loader for stores with weights, which need not add up to 1.
    ///
    /// # Errors
    /// Returns `ERR_INVALID_ARGUMENT` if there is no store, the shape is empty or a weight is not
    /// above 0, and `ERR_STORE_TOO_SHORT` if a store has no window.
    pub fn new(stores: Vec<(Arc<TokenStore>, f64)>, options: LoaderOptions) -> Result<Self> {
        let mixture = Arc::new(Mixture::new(stores, options)?);
        Ok(Self { mixture, prefetcher: Mutex::new(None) })
    }

    /// Returns a batch, and waits for it if necessary. Consecutive batches are prefetched.
    ///
    /// # Errors
    /// Returns `ERR_INVALID_ARGUMENT` for step 0 or a micro-batch that is not below `accumulate`,
    /// and the errors of reading a store.
    pub fn next(&self, step: u64, micro_batch: u32) -> Result<Batch> {
        if self.mixture.options.prefetch == 0 {
            return self.mixture.batch((step, micro_batch));
        }
        let mut prefetcher = self.prefetcher.lock().unwrap_or_else(PoisonError::into_inner);
        self.seek(&mut prefetcher, (step, micro_batch))?;
        let received = prefetcher.as_ref().map(|prefetcher| prefetcher.batches.recv());
        self.take(&mut prefetcher, received.and_then(std::result::Result::ok))
    }

    /// Returns a batch if it has been prefetched. Returns `None` if it has not, or if another call
    /// is waiting for a batch.
    ///
    /// # Errors
    /// As `next`.
    pub fn ready(&self, step: u64, micro_batch: u32) -> Result<Option<Batch>> {
        if self.mixture.options.prefetch == 0 {
            return Ok(None);
        }
        let Ok(mut prefetcher) = self.prefetcher.try_lock() else { return Ok(None) };
        self.seek(&mut prefetcher, (step, micro_batch))?;
        match prefetcher.as_ref().map(|prefetcher| prefetcher.batches.try_recv()) {
            Some(Err(TryRecvError::Empty)) => Ok(None),
            received => {
                let received = received.and_then(std::result::Result::ok);
                self.take(&mut prefetcher, received).map(Some)
            }
        }
    }

    /// Returns, for each window of a batch, the index of its store and the token at which it
    /// starts.
    ///
    /// # Errors
    /// Returns `ERR_INVALID_ARGUMENT` as `next`.
    pub fn windows(&self, step: u64, micro_batch: u32) -> Result<Vec<(usize, u64)>> {
        self.mixture.windows((step, micro_batch))
    }

    /// Stops the thread. A later call starts another.
    pub fn stop(&self) {
        *self.prefetcher.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Makes sure that the prefetcher sends the batch `index` next.
    fn seek(&self, prefetcher: &mut Option<Prefetcher>, index: BatchIndex) -> Result<()> {
        if prefetcher.as_ref().is_none_or(|prefetcher| prefetcher.next != index) {
            // The old thread ends once its channel has no receiver.
            *prefetcher = Some(Prefetcher { next: index, batches: self.start_thread(index)? });
        }
        Ok(())
    }

    fn start_thread(&self, mut index: BatchIndex) -> Result<Receiver<Result<Batch>>> {
        let (sender, receiver) = sync_channel(self.mixture.options.prefetch);
        let mixture = Arc::clone(&self.mixture);
        let work = move || {
            loop {
                let batch = mixture.batch(index);
                let failed = batch.is_err();
                if sender.send(batch).is_err() || failed {
                    return;
                }
                index = mixture.following(index);
            }
        };
        let thread = std::thread::Builder::new().name(THREAD_NAME.to_owned()).spawn(work);
        thread.map_err(|error| Error::io(IoAction::StartThread, THREAD_NAME, error))?;
        Ok(receiver)
    }

    fn take(
        &self,
        prefetcher: &mut Option<Prefetcher>,
        received: Option<Result<Batch>>,
    ) -> Result<Batch> {
        let panicked = || Err(Error::Internal("the thread that loads batches ended".to_owned()));
        let batch = received.unwrap_or_else(panicked);
        match (&batch, prefetcher.as_mut()) {
            (Ok(_), Some(prefetcher)) => prefetcher.next = self.mixture.following(prefetcher.next),
            // A later call starts over.
            _ => *prefetcher = None,
        }
        batch
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::element::Element;
    use crate::data::store_writer::StoreWriter;
    use crate::data::window_order::{BatchSpec, WindowOrder};
    use crate::test_support::Folder;

    const OPTIONS: LoaderOptions = LoaderOptions {
        batch_size: 5,
        seq_length: 4,
        seed: 3,
        accumulate: 2,
        order: WindowOrder::Epoch,
        prefetch: 2,
    };

    /// Writes a store of the tokens `first..first + length`. A loader's thread may still be reading
    /// it after the loader is dropped, so each test writes it only once.
    fn store(root: &Folder, first: u32, length: u32) -> Arc<TokenStore> {
        let folder = root.path().join(first.to_string());
        let mut writer = StoreWriter::create(&folder, 1_000, Element::Int32).unwrap();
        writer.push(&(first..first + length).collect::<Vec<_>>()).unwrap();
        writer.finish(|_| ()).unwrap();
        Arc::new(TokenStore::open(folder).unwrap())
    }

    fn parts(root: &Folder) -> Vec<(Arc<TokenStore>, f64)> {
        [(0, 401, 6.0), (10_000, 8_001, 3.0), (50_000, 5, 1.0)]
            .map(|(first, length, weight)| (store(root, first, length), weight))
            .into()
    }

    fn batches(loader: &BatchLoader, steps: std::ops::Range<u64>) -> Vec<Batch> {
        let indices = steps.flat_map(|step| [(step, 0), (step, 1)]);
        indices.map(|(step, micro_batch)| loader.next(step, micro_batch).unwrap()).collect()
    }

    #[test]
    fn batches_do_not_depend_on_prefetching_or_on_earlier_calls() {
        let root = Folder::new();
        let parts = parts(&root);
        for order in
            [WindowOrder::Random, WindowOrder::Epoch, WindowOrder::Sequential, WindowOrder::Dense]
        {
            for count in [1, 3] {
                let loader = |prefetch: usize| {
                    let options = LoaderOptions { order, prefetch, ..OPTIONS };
                    BatchLoader::new(parts[..count].to_vec(), options).unwrap()
                };
                let whole = batches(&loader(0), 1..60);
                for prefetch in [1, 2, 7] {
                    let one = loader(prefetch);
                    assert_eq!(batches(&one, 1..60), whole, "{order:?} {prefetch}");
                    // Start in the middle, then go back, then start at another micro-batch.
                    assert_eq!(batches(&loader(prefetch), 31..60), whole[60..]);
                    assert_eq!(batches(&one, 7..20), whole[12..38]);
                    assert_eq!(one.next(5, 1).unwrap(), whole[9]);
                }
            }
        }
    }

    #[test]
    fn one_store_loads_the_batches_of_the_store() {
        let root = Folder::new();
        let store = store(&root, 0, 5_000);
        let LoaderOptions { batch_size, seq_length, seed, accumulate, .. } = OPTIONS;
        for order in [WindowOrder::Random, WindowOrder::Dense] {
            let options = LoaderOptions { order, ..OPTIONS };
            let loader = BatchLoader::new(vec![(Arc::clone(&store), 0.5)], options).unwrap();
            for step in 1..30 {
                let spec = BatchSpec {
                    batch_size,
                    seq_length,
                    seed,
                    step,
                    micro_batch: 1,
                    accumulate,
                    order,
                };
                assert_eq!(loader.next(step, 1).unwrap(), store.batch(&spec).unwrap());
            }
        }
    }

    #[test]
    fn a_mixture_keeps_its_weights_and_each_store_its_epochs() {
        let root = Folder::new();
        let loader = BatchLoader::new(parts(&root), OPTIONS).unwrap();
        let mut firsts: [Vec<u32>; 3] = Default::default();
        for batch in batches(&loader, 1..1_001) {
            for row in batch.x.chunks(4) {
                assert_eq!(row[3], row[0] + 3);
                firsts[[10_000, 50_000].iter().filter(|&&first| row[0] >= first).count()]
                    .push(row[0]);
            }
        }
        // 10,000 rows: 6,000, 3,000 and 1,000 with standard deviations of 49, 46 and 30.
        for (firsts, expected) in firsts.iter().zip([6_000, 3_000, 1_000]) {
            assert!(firsts.len().abs_diff(expected) < 200, "{} of {expected}", firsts.len());
        }
        for epoch in firsts[0].chunks_exact(100) {
            let mut sorted = epoch.to_vec();
            sorted.sort_unstable();
            assert!(sorted.into_iter().eq((0..100).map(|i| 4 * i)));
        }
        let mut second = firsts[1].clone();
        second.truncate(2_000);
        second.sort_unstable();
        second.dedup();
        assert_eq!(second.len(), 2_000, "no window repeats within an epoch");
        assert!(firsts[2].iter().all(|&first| first == 50_000));
    }

    #[test]
    fn a_batch_is_ready_or_can_be_awaited() {
        let root = Folder::new();
        let parts = parts(&root);
        let loader = BatchLoader::new(parts.clone(), OPTIONS).unwrap();
        let expected = batches(&BatchLoader::new(parts.clone(), OPTIONS).unwrap(), 1..4);
        for (n, expected) in expected.into_iter().enumerate() {
            let (step, micro_batch) = (n as u64 / 2 + 1, n as u32 % 2);
            let ready = loader.ready(step, micro_batch).unwrap();
            assert_eq!(ready.unwrap_or_else(|| loader.next(step, micro_batch).unwrap()), expected);
        }
        let options = LoaderOptions { prefetch: 0, ..OPTIONS };
        assert_eq!(BatchLoader::new(parts, options).unwrap().ready(1, 0).unwrap(), None);
    }

    #[test]
    fn invalid_options_are_errors() {
        let root = Folder::new();
        let code = |parts: Vec<(Arc<TokenStore>, f64)>, options: LoaderOptions| {
            BatchLoader::new(parts, options).unwrap_err().code()
        };
        assert_eq!(code(Vec::new(), OPTIONS), "ERR_INVALID_ARGUMENT");
        let part = |weight: f64| vec![(store(&root, 1, 9), weight)];
        for weight in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert_eq!(code(part(weight), OPTIONS), "ERR_INVALID_ARGUMENT");
        }
        assert_eq!(
            code(part(1.0), LoaderOptions { batch_size: 0, ..OPTIONS }),
            "ERR_INVALID_ARGUMENT"
        );
        assert_eq!(
            code(part(1.0), LoaderOptions { accumulate: 0, ..OPTIONS }),
            "ERR_INVALID_ARGUMENT"
        );
        assert_eq!(
            code(part(1.0), LoaderOptions { seq_length: 9, ..OPTIONS }),
            "ERR_STORE_TOO_SHORT"
        );
        let loader = BatchLoader::new(part(1.0), OPTIONS).unwrap();
        for (step, micro_batch) in [(0, 0), (1, 2)] {
            assert_eq!(loader.next(step, micro_batch).unwrap_err().code(), "ERR_INVALID_ARGUMENT");
        }
    }

    #[test]
    fn the_thread_ends_with_stop_and_with_its_loader() {
        let root = Folder::new();
        let loader = BatchLoader::new(parts(&root), OPTIONS).unwrap();
        let wait_for = |mixture: &std::sync::Weak<Mixture>, holders: usize| {
            while mixture.strong_count() > holders {
                std::thread::yield_now();
            }
        };
        let mixture = Arc::downgrade(&loader.mixture);
        let batch = loader.next(1, 0).unwrap();
        loader.stop();
        wait_for(&mixture, 1);
        assert_eq!(loader.next(1, 0).unwrap(), batch);
        drop(loader);
        wait_for(&mixture, 0);
    }
}
