//! The batches of a run, of one store or a mixture of several, made ahead of the step that needs them.
//!
//! A mixture draws the store of each row by the weights from (seed, row), and each store goes on through its own windows as
//! it is drawn. So a batch depends on seed and step alone: not on what was asked before, on how many were made ahead, or on
//! threads. Nothing is saved for a run to be continued; going to step n counts the rows before it once (10 ns each).

use std::sync::mpsc::{Receiver, TryRecvError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

use super::batch::Batch;
use super::token_store::TokenStore;
use super::window_order::{BatchSpec, Places, Sampling, check_shape};
use crate::random::{Purpose, uniform};
use crate::{Error, Result};

/// What is the same for all batches of a run.
#[derive(Debug, Clone, Copy)]
pub struct LoaderOptions {
    /// Windows a batch.
    pub batch_size: usize,
    /// Tokens a window.
    pub seq_length: usize,
    /// Seed of the run.
    pub seed: u64,
    /// Batches a step accumulates.
    pub accumulate: u32,
    /// How places are chosen.
    pub sampling: Sampling,
    /// Batches made ahead on a thread of their own; 0: none.
    pub prefetch: usize,
}

/// Step and micro-batch.
type Turn = (u64, u32);

/// Makes the batches of a run.
#[derive(Debug)]
pub struct BatchLoader {
    source: Arc<Source>,
    ahead: Mutex<Option<Ahead>>,
}

/// A thread that makes batches.
#[derive(Debug)]
struct Ahead {
    /// Whose batch comes next.
    turn: Turn,
    batches: Receiver<Result<Batch>>,
}

impl BatchLoader {
    /// Batches of stores, each with its share of the rows; shares need not add up to one.
    ///
    /// # Errors
    /// `ERR_INVALID_ARGUMENT` for no store, an empty shape, or a share that is no number above 0; `ERR_STORE_TOO_SHORT`.
    pub fn new(parts: Vec<(Arc<TokenStore>, f64)>, options: LoaderOptions) -> Result<Self> {
        check_shape(options.batch_size, options.seq_length)?;
        if parts.is_empty() || options.accumulate == 0 {
            return Err(Error::argument("batches need a store, and at least one of them a step"));
        }
        if let Some((_, weight)) =
            parts.iter().find(|(_, weight)| !(weight.is_finite() && *weight > 0.0))
        {
            return Err(Error::argument(format!(
                "a store's weight is {weight}; it must be above 0"
            )));
        }
        let total: f64 = parts.iter().map(|(_, weight)| weight).sum();
        let (mut below, mut mixed) = (0.0, Vec::with_capacity(parts.len()));
        for (store, weight) in parts {
            below += weight / total;
            let places = Places::new(store.len(), options.seq_length, options.seed)?;
            mixed.push(Part { store, places, below });
        }
        let counted = Mutex::new((0, vec![0; mixed.len()]));
        let source = Arc::new(Source { parts: mixed, options, counted });
        Ok(Self { source, ahead: Mutex::new(None) })
    }

    /// The batch of a step, waiting for it if need be. Steps that follow each other are made ahead.
    ///
    /// # Errors
    /// `ERR_INVALID_ARGUMENT` for a step 0 or a micro-batch that is none; what reading the store gives.
    pub fn next(&self, step: u64, micro_batch: u32) -> Result<Batch> {
        if self.source.options.prefetch == 0 {
            return self.source.batch((step, micro_batch));
        }
        let mut place = self.ahead.lock().unwrap_or_else(PoisonError::into_inner);
        self.turn_to(&mut place, (step, micro_batch))?;
        let made = place.as_ref().map(|ahead| ahead.batches.recv());
        self.take(&mut place, made.and_then(std::result::Result::ok))
    }

    /// The batch of a step if it has been made; none if it is still in the making, or another call waits for one.
    ///
    /// # Errors
    /// As `next`.
    pub fn ready(&self, step: u64, micro_batch: u32) -> Result<Option<Batch>> {
        if self.source.options.prefetch == 0 {
            return Ok(None);
        }
        let Ok(mut place) = self.ahead.try_lock() else { return Ok(None) };
        self.turn_to(&mut place, (step, micro_batch))?;
        match place.as_ref().map(|ahead| ahead.batches.try_recv()) {
            Some(Err(TryRecvError::Empty)) => Ok(None),
            made => self.take(&mut place, made.and_then(std::result::Result::ok)).map(Some),
        }
    }

    /// Ends the thread, if there is one; a later call starts another.
    pub fn stop(&self) {
        *self.ahead.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Sees to it that the thread makes the batch of `turn` next.
    fn turn_to(&self, place: &mut Option<Ahead>, turn: Turn) -> Result<()> {
        if place.as_ref().is_none_or(|ahead| ahead.turn != turn) {
            // The old thread ends when it finds nobody to take its batch.
            *place = Some(Ahead { turn, batches: self.start(turn)? });
        }
        Ok(())
    }

    fn start(&self, mut turn: Turn) -> Result<Receiver<Result<Batch>>> {
        let (sender, receiver) = sync_channel(self.source.options.prefetch);
        let source = Arc::clone(&self.source);
        let work = move || {
            loop {
                let batch = source.batch(turn);
                let ended = batch.is_err();
                if sender.send(batch).is_err() || ended {
                    return;
                }
                turn = source.following(turn);
            }
        };
        let thread = std::thread::Builder::new().name("kindling-batches".to_owned()).spawn(work);
        thread.map_err(|error| Error::io("cannot start a thread for", "batches", error))?;
        Ok(receiver)
    }

    fn take(&self, place: &mut Option<Ahead>, made: Option<Result<Batch>>) -> Result<Batch> {
        let batch = made
            .unwrap_or_else(|| Err(Error::Internal("the thread of the batches ended".to_owned())));
        match (&batch, place.as_mut()) {
            (Ok(_), Some(ahead)) => ahead.turn = self.source.following(ahead.turn),
            // A later call tries again.
            _ => *place = None,
        }
        batch
    }
}

#[derive(Debug)]
struct Part {
    store: Arc<TokenStore>,
    places: Places,
    /// A draw below this, and not below that of the part before, is of this part.
    below: f64,
}

#[derive(Debug)]
struct Source {
    parts: Vec<Part>,
    options: LoaderOptions,
    /// How many of the rows up to one are of each part.
    counted: Mutex<(u64, Vec<u64>)>,
}

impl Source {
    fn following(&self, (step, micro_batch): Turn) -> Turn {
        if micro_batch + 1 < self.options.accumulate {
            (step, micro_batch + 1)
        } else {
            (step + 1, 0)
        }
    }

    fn batch(&self, (step, micro_batch): Turn) -> Result<Batch> {
        let LoaderOptions { batch_size, seq_length, seed, accumulate, sampling, .. } = self.options;
        let spec =
            BatchSpec { batch_size, seq_length, seed, step, micro_batch, accumulate, sampling };
        if let [part] = &self.parts[..] {
            return part.store.batch(&spec);
        }
        let first = spec.first_row()?;
        let mut counts = self.counts(first);
        let mut batch = Batch::zeros(batch_size, seq_length)?;
        for row in 0..batch_size {
            let number = self.part_of(first + row as u64);
            let part = &self.parts[number];
            let start = part.places.start(sampling, counts[number], 0);
            part.store.read_window(start, batch.row_mut(row))?;
            counts[number] += 1;
        }
        *self.counted.lock().unwrap_or_else(PoisonError::into_inner) =
            (first + batch_size as u64, counts);
        Ok(batch)
    }

    /// The part that `row` of the run is of.
    fn part_of(&self, row: u64) -> usize {
        let draw = uniform(self.options.seed, Purpose::Mixture, row, 0);
        self.parts[..self.parts.len() - 1].partition_point(|part| part.below <= draw)
    }

    /// How many of the rows before `row` are of each part.
    fn counts(&self, row: u64) -> Vec<u64> {
        let (mut counted, mut counts) =
            self.counted.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if counted > row {
            counted = 0;
            counts.fill(0);
        }
        for row in counted..row {
            counts[self.part_of(row)] += 1;
        }
        counts
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Element;
    use crate::data::store_writer::StoreWriter;
    use crate::test_support::Folder;

    const OPTIONS: LoaderOptions = LoaderOptions {
        batch_size: 5,
        seq_length: 4,
        seed: 3,
        accumulate: 2,
        sampling: Sampling::Epoch,
        prefetch: 2,
    };

    /// A store of `length` tokens that count up from `first`. Made once a test: a loader's thread may still read one.
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

    /// The batches of `steps`.
    fn batches(loader: &BatchLoader, steps: std::ops::Range<u64>) -> Vec<Batch> {
        let turns = steps.flat_map(|step| [(step, 0), (step, 1)]);
        turns.map(|(step, micro_batch)| loader.next(step, micro_batch).unwrap()).collect()
    }

    #[test]
    fn batches_depend_neither_on_those_made_ahead_nor_on_where_a_run_begins() {
        let root = Folder::new();
        let parts = parts(&root);
        for sampling in [Sampling::Random, Sampling::Epoch, Sampling::Sequential, Sampling::Dense] {
            for count in [1, 3] {
                let loader = |prefetch: usize| {
                    let options = LoaderOptions { sampling, prefetch, ..OPTIONS };
                    BatchLoader::new(parts[..count].to_vec(), options).unwrap()
                };
                let whole = batches(&loader(0), 1..60);
                for prefetch in [1, 2, 7] {
                    let one = loader(prefetch);
                    assert_eq!(batches(&one, 1..60), whole, "{sampling:?} {prefetch}");
                    // Resumed in the middle, gone back, and begun with the other micro-batch.
                    assert_eq!(batches(&loader(prefetch), 31..60), whole[60..]);
                    assert_eq!(batches(&one, 7..20), whole[12..38]);
                    assert_eq!(one.next(5, 1).unwrap(), whole[9]);
                }
            }
        }
    }

    #[test]
    fn one_store_gives_the_batches_it_gives_itself() {
        let root = Folder::new();
        let store = store(&root, 0, 5_000);
        let LoaderOptions { batch_size, seq_length, seed, accumulate, .. } = OPTIONS;
        for sampling in [Sampling::Random, Sampling::Dense] {
            let options = LoaderOptions { sampling, ..OPTIONS };
            let loader = BatchLoader::new(vec![(Arc::clone(&store), 0.5)], options).unwrap();
            for step in 1..30 {
                let spec = BatchSpec {
                    batch_size,
                    seq_length,
                    seed,
                    step,
                    micro_batch: 1,
                    accumulate,
                    sampling,
                };
                assert_eq!(loader.next(step, 1).unwrap(), store.batch(&spec).unwrap());
            }
        }
    }

    #[test]
    fn a_mixture_holds_its_weights_and_each_store_goes_through_its_windows_once_an_epoch() {
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
        assert_eq!(second.len(), 2_000, "all windows of the second store before any comes again");
        assert!(firsts[2].iter().all(|&first| first == 50_000));
    }

    #[test]
    fn a_batch_is_ready_at_once_or_comes_with_waiting() {
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
    fn what_makes_no_batches_is_refused() {
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
    fn the_thread_ends_when_it_is_stopped_and_with_its_loader() {
        let root = Folder::new();
        let loader = BatchLoader::new(parts(&root), OPTIONS).unwrap();
        let wait_for = |source: &std::sync::Weak<Source>, holders: usize| {
            while source.strong_count() > holders {
                std::thread::yield_now();
            }
        };
        let source = Arc::downgrade(&loader.source);
        let batch = loader.next(1, 0).unwrap();
        loader.stop();
        wait_for(&source, 1);
        assert_eq!(loader.next(1, 0).unwrap(), batch);
        drop(loader);
        wait_for(&source, 0);
    }
}
