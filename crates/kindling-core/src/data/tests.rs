//! Tests of the token store against plain arrays, files written by numpy, and a sparse store of four
//! gigabytes.

use std::path::{Path, PathBuf};

use super::files::chunk_name;
use super::{Batch, BatchSpec, Element, StoreWriter, TokenStore, WindowOrder};
use crate::progress::silent;
use crate::random::{Purpose, below};
use crate::test_support::{Folder, names};

/// Returns a reproducible random number below `bound`.
pub(super) fn draw(stream: u64, index: u32, bound: u64) -> u64 {
    below(42, Purpose::Benchmark, stream, index, bound)
}

pub(super) fn tokens(length: u64, stream: u64) -> Vec<u32> {
    (0..length as u32).map(|i| draw(stream, i, 50_000) as u32).collect()
}

pub(super) fn write(folder: &Path, ids: &[u32], chunk_size: u64) -> TokenStore {
    let mut writer = StoreWriter::create(folder, chunk_size, Element::Int32).unwrap();
    // Pushed in pieces of uneven length, as an encoder does.
    ids.chunks(977).for_each(|piece| writer.push(piece).unwrap());
    writer.finish(|_| ()).unwrap();
    TokenStore::open(folder).unwrap()
}

const SPEC: BatchSpec = BatchSpec {
    batch_size: 1,
    seq_length: 1,
    seed: 0,
    step: 1,
    micro_batch: 0,
    accumulate: 1,
    order: WindowOrder::Random,
};

pub(super) fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/token_store").join(name)
}

fn as_i32(ids: &[u32]) -> Vec<i32> {
    ids.iter().map(|&id| id as i32).collect()
}

#[test]
fn every_range_equals_the_plain_array() {
    for round in 0..10 {
        let length = 1 + draw(round, 1, 300);
        let chunk_size = 1 + draw(round, 2, 60);
        let ids = tokens(length, 1_000 + round);
        let root = Folder::new();
        let store = write(&root.path().join("store"), &ids, chunk_size);
        assert_eq!(store.len(), length);
        let check = |start: u64, end: u64| {
            let expected = as_i32(&ids[start as usize..end as usize]);
            assert_eq!(
                store.load_by_range(start, end).unwrap(),
                expected,
                "{start}..{end} by {chunk_size}"
            );
        };
        // Empty, whole, and to and from every chunk boundary.
        check(0, 0);
        check(length, length);
        check(0, length);
        for edge in (0..=length).step_by(chunk_size as usize) {
            check(0, edge);
            check(edge, length);
            check(edge, (edge + chunk_size).min(length));
        }
        for i in 0..50 {
            let start = draw(round, 100 + i, length + 1);
            check(start, start + draw(round, 200 + i, length - start + 1));
        }
        for (start, end) in [(0, length + 1), (length + 1, length + 1), (length, 0), (0, u64::MAX)]
        {
            let error = store.load_by_range(start, end).unwrap_err();
            assert_eq!(error.code(), "ERR_RANGE_OUT_OF_BOUNDS");
        }
    }
}

#[test]
fn chunk_files_are_raw_little_endian_int32() {
    let root = Folder::new();
    write(root.path(), &[1, 258, 70_000], 2);
    assert_eq!(names(root.path()), [chunk_name(0), chunk_name(1), "store.json".to_owned()]);
    assert_eq!(std::fs::read(root.path().join(chunk_name(0))).unwrap(), [1, 0, 0, 0, 2, 1, 0, 0]);
    assert_eq!(std::fs::read(root.path().join(chunk_name(1))).unwrap(), [0x70, 0x11, 1, 0]);
}

#[test]
fn a_truncated_store_equals_a_shorter_one() {
    let ids = tokens(53, 14);
    for chunk_size in [7, 10, 60] {
        for length in [1, 7, 20, 52, 53] {
            let (truncated, short) = (Folder::new(), Folder::new());
            let mut writer =
                StoreWriter::create(truncated.path(), chunk_size, Element::Int32).unwrap();
            writer.push(&ids).unwrap();
            writer.truncate(length).unwrap();
            let metadata = writer.finish(|_| ()).unwrap();
            let expected = write(short.path(), &ids[..length as usize], chunk_size);
            assert_eq!(&metadata, expected.metadata());
            assert_eq!(names(truncated.path()), names(short.path()));
            let store = TokenStore::open(truncated.path()).unwrap();
            store.verify(&mut silent).unwrap();
            assert_eq!(
                store.load_by_range(0, length).unwrap(),
                expected.load_by_range(0, length).unwrap()
            );
        }
    }
}

#[test]
fn files_written_by_numpy_open_without_conversion() {
    let expected: Vec<_> = (0..23).map(|i| 7919 * i % 50257).collect();
    for name in
        ["numpy_chunks", "tokens_int32.npy", "tokens_int64.npy", "tokens_uint16.npy", "tokens.bin"]
    {
        let store = TokenStore::open(fixture(name)).unwrap();
        assert_eq!(store.load_by_range(0, 23).unwrap(), expected, "{name}");
        assert_eq!(store.len(), 23);
        assert_eq!(store.load_by_range(9, 11).unwrap(), expected[9..11]);
    }
    assert_eq!(TokenStore::open(fixture("numpy_chunks")).unwrap().metadata().chunk_size, 10);
    let error = TokenStore::open(fixture("tokens_float32.npy")).unwrap_err();
    assert_eq!(error.code(), "ERR_INVALID_STORE");
    assert!(error.to_string().contains("<f4"), "{error}");
}

/// Returns the rows of a batch with their targets.
fn rows(batch: &Batch) -> Vec<(Vec<i32>, Vec<i32>)> {
    let rows = batch.x.chunks(batch.seq_length).zip(batch.targets.chunks(batch.seq_length));
    rows.map(|(x, y)| (as_i32(x), y.to_vec())).collect()
}

#[test]
fn targets_are_the_tokens_shifted_by_one() {
    let ids = as_i32(&tokens(100, 7));
    let root = Folder::new();
    let store = write(root.path(), &tokens(100, 7), 8);
    for step in 1..50 {
        let spec = BatchSpec { batch_size: 5, seq_length: 20, seed: 3, step, ..SPEC };
        let batch = store.batch(&spec).unwrap();
        assert_eq!(batch, store.batch(&spec).unwrap());
        for (x, y) in rows(&batch) {
            let start = ids.windows(20).position(|window| window == x).unwrap();
            assert_eq!(y, ids[start + 1..start + 21]);
        }
    }
}

#[test]
fn batches_do_not_depend_on_the_chunk_size() {
    let (a, b) = (Folder::new(), Folder::new());
    let ids = tokens(500, 8);
    let (a, b) = (write(a.path(), &ids, 3), write(b.path(), &ids, 1_000));
    let spec = BatchSpec { batch_size: 9, seq_length: 50, seed: 1, micro_batch: 1, ..SPEC };
    assert_eq!(a.batch(&spec).unwrap(), b.batch(&spec).unwrap());
}

#[test]
fn evaluation_windows_are_consecutive_and_the_rest_is_dropped() {
    let ids = as_i32(&tokens(32, 9));
    let root = Folder::new();
    let store = write(root.path(), &tokens(32, 9), 5);
    for (seq_length, windows) in [(10, 3), (31, 1), (8, 3), (1, 31)] {
        assert_eq!(store.num_windows(seq_length).unwrap(), windows);
        let batch = store.evaluation_batch(seq_length, 0, windows as usize).unwrap();
        for (i, (x, y)) in rows(&batch).into_iter().enumerate() {
            let start = i * seq_length;
            assert_eq!(x, ids[start..start + seq_length]);
            assert_eq!(y, ids[start + 1..=start + seq_length]);
        }
        let last = store.evaluation_batch(seq_length, windows - 1, 1).unwrap();
        assert_eq!(rows(&last)[0], rows(&batch)[windows as usize - 1]);
        for (first, count) in [(windows, 1), (0, 0)] {
            assert!(store.evaluation_batch(seq_length, first, count).is_err());
        }
    }
    assert_eq!(store.num_windows(32).unwrap_err().code(), "ERR_STORE_TOO_SHORT");
    assert_eq!(store.num_windows(0).unwrap_err().code(), "ERR_INVALID_ARGUMENT");
}

#[test]
fn the_first_id_outside_the_vocabulary_is_reported() {
    let root = Folder::new();
    let mut ids = tokens(70, 10);
    ids[61] = 50_001;
    let written = write(root.path(), &ids, 8);
    assert_eq!(written.metadata().max_id, Some(50_001));
    std::fs::remove_file(root.path().join("store.json")).unwrap();
    for store in [written, TokenStore::open(root.path()).unwrap()] {
        let error = store.check_vocab(50_001, &mut silent).unwrap_err();
        assert_eq!(error.code(), "ERR_TOKEN_OUT_OF_RANGE");
        assert!(error.to_string().contains("50001 at position 61"), "{error}");
        store.check_vocab(50_002, &mut silent).unwrap();
        store.check_vocab(60_000, &mut |_, _| panic!("read twice")).unwrap();
    }
}

#[test]
fn the_first_negative_id_is_reported() {
    let root = Folder::new();
    let bytes: Vec<u8> = [5i32, 6, -2, 8].iter().flat_map(|id| id.to_le_bytes()).collect();
    std::fs::write(root.path().join(chunk_name(0)), bytes).unwrap();
    let store = TokenStore::open(root.path()).unwrap();
    let error = store.check_vocab(100, &mut silent).unwrap_err();
    assert!(error.to_string().contains("-2 at position 2"), "{error}");
    let error = store.evaluation_batch(3, 0, 1).unwrap_err();
    assert!(error.to_string().contains("-2 at position 2"), "{error}");
}

#[test]
fn token_counts_count_every_id() {
    let root = Folder::new();
    let store = write(root.path(), &[1, 2, 2, 4], 3);
    for vocab_size in [5, 6, usize::MAX] {
        assert_eq!(store.token_counts(vocab_size, &mut silent).unwrap(), [0, 1, 2, 0, 1]);
    }
    assert_eq!(store.token_counts(4, &mut silent).unwrap_err().code(), "ERR_TOKEN_OUT_OF_RANGE");
}

#[test]
fn uint16_chunks_take_two_bytes_per_token() {
    let root = Folder::new();
    let ids = [1, 258, 65_535, 7];
    let mut writer = StoreWriter::create(root.path(), 3, Element::Uint16).unwrap();
    writer.push(&ids).unwrap();
    writer.finish(|_| ()).unwrap();
    assert_eq!(std::fs::read(root.path().join(chunk_name(0))).unwrap(), [1, 0, 2, 1, 255, 255]);
    let store = TokenStore::open(root.path()).unwrap();
    assert_eq!(store.load_by_range(0, 4).unwrap(), as_i32(&ids));
    assert_eq!(store.metadata().dtype, "uint16");
    store.check_vocab(65_536, &mut silent).unwrap();
    assert_eq!(store.evaluation_batch(3, 0, 1).unwrap().targets, [258, 65_535, 7]);
    let folder = Folder::new();
    let mut writer = StoreWriter::create(folder.path(), 3, Element::Uint16).unwrap();
    assert_eq!(writer.push(&[65_536]).unwrap_err().code(), "ERR_TOKEN_OUT_OF_RANGE");
}

#[test]
fn any_number_of_chunks_is_read_with_few_open_files() {
    let root = Folder::new();
    let store = write(root.path(), &tokens(1_000, 13), 3);
    let all = store.load_by_range(0, 1_000).unwrap();
    for start in (0..990).rev().step_by(7) {
        let range = start as usize..start as usize + 10;
        assert_eq!(store.load_by_range(start, start + 10).unwrap(), all[range]);
    }
    #[cfg(target_os = "linux")]
    {
        let open = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
        let ours = open.filter(|fd| {
            std::fs::read_link(fd.path()).is_ok_and(|target| target.starts_with(root.path()))
        });
        assert_eq!(ours.count(), 64);
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_batch_of_a_large_store_reads_only_its_windows() {
    let root = Folder::new();
    // 2,000 sparse chunks of 500,000 tokens, which take no space on disk.
    for number in 0..2_000 {
        std::fs::File::create(root.path().join(chunk_name(number)))
            .unwrap()
            .set_len(2_000_000)
            .unwrap();
    }
    let store = TokenStore::open(root.path()).unwrap();
    assert_eq!(store.len(), 1_000_000_000);
    let spec = BatchSpec { batch_size: 32, seq_length: 256, seed: 1, ..SPEC };
    let batch = store.batch(&spec).unwrap();
    assert!(batch.x.iter().all(|&id| id == 0));
    // An in-memory file system allocates the pages of holes that are read.
    let pages = std::fs::read_dir(root.path()).unwrap().map(|entry| {
        std::os::unix::fs::MetadataExt::blocks(&entry.unwrap().metadata().unwrap()) * 512
    });
    assert!(pages.sum::<u64>() <= 32 * 2 * 65_536);
    assert_eq!(store.load_by_range(999_999_000, 1_000_000_000).unwrap().len(), 1_000);
}
