//! Tests that the same call completes the same store, whatever a killed encoding left.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::tests::{corpus, encode, ends_after, options, text};
use super::{EncodeOptions, encode_files};
use crate::corpus::Document;
use crate::progress::silent;
use crate::test_support::names;
use crate::tokenizer::Tokenizer;

/// Returns every file below `folder` with its bytes.
fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for name in names(folder) {
        let path = folder.join(&name);
        if path.is_dir() {
            found.extend(
                files(&path)
                    .into_iter()
                    .map(|(below, bytes)| (Path::new(&name).join(below), bytes)),
            );
        } else {
            found.insert(name.into(), std::fs::read(path).unwrap());
        }
    }
    found
}

fn hidden(folder: &Path) -> Vec<String> {
    names(folder).into_iter().filter(|name| name.starts_with('.')).collect()
}

/// Returns the path of the chunk in progress.
fn last_chunk(made: &Path) -> PathBuf {
    made.join(names(made).into_iter().max_by_key(|name| (name.len(), name.clone())).unwrap())
}

/// Cancels the encoding again and again, as kills would, until it completes. Returns how often it
/// was cancelled, and how many bytes the last call reports as resumed.
fn encode_in_pieces(
    inputs: &[PathBuf],
    tokenizer: &Arc<Tokenizer>,
    out: &Path,
    o: &EncodeOptions,
) -> (u32, u64) {
    let o = EncodeOptions { keep_when_cancelled: true, ..o.clone() };
    for ended in 0.. {
        match encode_files(inputs, tokenizer, out, &o, &mut ends_after(3 + ended as i32 % 5)) {
            Ok(summary) => return (ended, summary.resumed_bytes),
            Err(error) => assert_eq!(error.code(), "ERR_CANCELLED"),
        }
        assert!(ended < 1_000, "it makes progress");
    }
    unreachable!()
}

#[test]
fn an_encoding_killed_again_and_again_writes_the_same_store() {
    let (folder, file, tokenizer) = corpus(600_000);
    let (lines, second) = (folder.path().join("lines.jsonl"), folder.path().join("second.txt"));
    std::fs::write(&second, [text(3_000).as_bytes(), b"\xFF cut \xE2\x82"].concat()).unwrap();
    let objects: Vec<_> =
        text(200_000).split('\n').map(|line| format!("{{\"text\":\"{line}\"}}")).collect();
    let objects = objects.join("\n");
    std::fs::write(&lines, objects).unwrap();
    let inputs = [file.clone(), lines, second, file];
    for (name, valid_fraction) in [("data", 0.3), ("all_chunks", 0.0)] {
        let o = EncodeOptions { chunk_size: 70_001, valid_fraction, append_eot: true, ..options() };
        let (whole, pieces) =
            (folder.path().join("whole").join(name), folder.path().join("pieces").join(name));
        encode_files(&inputs, &tokenizer, &whole, &o, &mut silent).unwrap();
        let (ended, resumed) = encode_in_pieces(&inputs, &tokenizer, &pieces, &o);
        assert!(ended > 3 && resumed > 0, "cancelled {ended} times, resumed at {resumed}");
        assert_eq!(files(&pieces), files(&whole));
        assert!(hidden(pieces.parent().unwrap()).is_empty());
    }
}

#[test]
fn compressed_text_resumes_within_the_stream() {
    let (folder, _, tokenizer) = corpus(10);
    let file = folder.path().join("lines.txt.gz");
    let mut gzip = flate2::write::GzEncoder::new(
        std::fs::File::create(&file).unwrap(),
        flate2::Compression::fast(),
    );
    std::io::Write::write_all(&mut gzip, text(800_000).as_bytes()).unwrap();
    gzip.finish().unwrap();
    let (whole, pieces) = (folder.path().join("whole_chunks"), folder.path().join("pieces_chunks"));
    encode(&[&file], &tokenizer, &whole, &options()).unwrap();
    let (_, resumed) = encode_in_pieces(&[file], &tokenizer, &pieces, &options());
    assert!(resumed > 0);
    assert_eq!(files(&pieces), files(&whole));
}

#[test]
fn documents_longer_than_blocks_resume_at_their_start() {
    let (folder, _, tokenizer) = corpus(10);
    let file = folder.path().join("long.txt");
    let long = text(500_000).replace('\n', " x");
    std::fs::write(&file, [&long, "sea", &long, "the", "", "whale", &long].join("\n\n")).unwrap();
    for document in [Document::Line, Document::Block] {
        let o = EncodeOptions {
            document: Some(document),
            append_eot: true,
            chunk_size: 70_001,
            ..options()
        };
        let (whole, pieces) =
            (folder.path().join("whole_chunks"), folder.path().join("pieces_chunks"));
        encode(&[&file], &tokenizer, &whole, &o).unwrap();
        // Cancelled at each of the first calls in turn.
        for calls in 3..40 {
            let first = EncodeOptions { keep_when_cancelled: true, ..o.clone() };
            let ended = encode_files(
                std::slice::from_ref(&file),
                &tokenizer,
                &pieces,
                &first,
                &mut ends_after(calls),
            );
            assert!(ended.is_ok() || !hidden(folder.path()).is_empty());
            encode(&[&file], &tokenizer, &pieces, &o).unwrap();
            assert_eq!(files(&pieces), files(&whole), "{document:?} cancelled at call {calls}");
        }
    }
}

/// Cancels an encoding, and returns the folder that it left.
fn ended_early(o: &EncodeOptions, file: &Path, tokenizer: &Arc<Tokenizer>, out: &Path) -> PathBuf {
    let o = EncodeOptions { keep_when_cancelled: true, ..o.clone() };
    encode_files(&[file.to_path_buf()], tokenizer, out, &o, &mut ends_after(8)).unwrap_err();
    let [name] = &hidden(out.parent().unwrap())[..] else { panic!("one folder is left") };
    out.parent().unwrap().join(name)
}

#[test]
fn changed_options_or_files_start_over() {
    let (folder, file, tokenizer) = corpus(900_000);
    let out = folder.path().join("x_chunks");
    let o = EncodeOptions { chunk_size: 50_000, ..options() };
    let summary = |changed: &EncodeOptions| encode(&[&file], &tokenizer, &out, changed).unwrap();
    for changed in [
        EncodeOptions { resume: false, ..o.clone() },
        EncodeOptions { chunk_size: 50_001, ..o.clone() },
        EncodeOptions { append_eot: true, ..o.clone() },
    ] {
        ended_early(&o, &file, &tokenizer, &out);
        assert_eq!(summary(&changed).resumed_bytes, 0, "{changed:?}");
        assert!(hidden(folder.path()).is_empty());
    }
    ended_early(&o, &file, &tokenizer, &out);
    assert!(summary(&EncodeOptions { threads: 1, ..o.clone() }).resumed_bytes > 0);
    ended_early(&o, &file, &tokenizer, &out);
    std::fs::write(&file, text(900_001)).unwrap();
    assert_eq!(summary(&o).resumed_bytes, 0, "the file has changed");
}

#[test]
fn damaged_leftovers_are_found_and_encoding_starts_over() {
    let (folder, file, tokenizer) = corpus(900_000);
    let (whole, out) = (folder.path().join("whole_chunks"), folder.path().join("x_chunks"));
    let o = EncodeOptions { chunk_size: 50_000, ..options() };
    encode(&[&file], &tokenizer, &whole, &o).unwrap();
    let damages: [fn(&Path); 6] = [
        // A power cut can leave files with the right size and the wrong content.
        |made| {
            let path = made.join("encoded_tokens_chunk_0.dat");
            let length = std::fs::metadata(&path).unwrap().len();
            std::fs::write(path, vec![0; length as usize]).unwrap();
        },
        |made| std::fs::remove_file(made.join("encoded_tokens_chunk_0.dat")).unwrap(),
        |made| {
            std::fs::write(last_chunk(made), []).unwrap();
        },
        |made| std::fs::remove_file(last_chunk(made)).unwrap(),
        // Zeros at the end of the chunk in progress.
        |made| {
            let last = last_chunk(made);
            let mut bytes = std::fs::read(&last).unwrap();
            let length = bytes.len();
            bytes[length / 2..].fill(0);
            std::fs::write(last, bytes).unwrap();
        },
        |made| std::fs::write(made.parent().unwrap().join("journal.jsonl"), "{}\n").unwrap(),
    ];
    for damage in damages {
        let left = ended_early(&o, &file, &tokenizer, &out);
        damage(&left.join("made"));
        encode(&[&file], &tokenizer, &out, &o).unwrap();
        assert_eq!(files(&out), files(&whole));
        assert!(hidden(folder.path()).is_empty());
    }
}

#[test]
fn incomplete_journal_lines_count_as_not_written() {
    let (folder, file, tokenizer) = corpus(900_000);
    let (whole, out) = (folder.path().join("whole_chunks"), folder.path().join("x_chunks"));
    encode(&[&file], &tokenizer, &whole, &options()).unwrap();
    let left = ended_early(&options(), &file, &tokenizer, &out);
    let kept = files(&left);
    let journal = &kept[Path::new("journal.jsonl")];
    for length in (0..journal.len()).step_by(journal.len() / 16) {
        std::fs::create_dir_all(left.join("made")).unwrap();
        for (name, bytes) in &kept {
            std::fs::write(left.join(name), bytes).unwrap();
        }
        std::fs::write(left.join("journal.jsonl"), &journal[..length]).unwrap();
        encode(&[&file], &tokenizer, &out, &options()).unwrap();
        assert_eq!(files(&out), files(&whole), "cut at {length} of {}", journal.len());
        assert!(hidden(folder.path()).is_empty());
    }
}

#[test]
fn text_after_the_last_synced_line_is_encoded_again_if_a_power_cut_has_lost_it() {
    let (folder, file, tokenizer) = corpus(900_000);
    let (whole, out) = (folder.path().join("whole_chunks"), folder.path().join("x_chunks"));
    encode(&[&file], &tokenizer, &whole, &options()).unwrap();
    let o = EncodeOptions { keep_when_cancelled: true, ..options() };
    for _ in 0..2 {
        let inputs = std::slice::from_ref(&file);
        encode_files(inputs, &tokenizer, &out, &o, &mut ends_after(5)).unwrap_err();
    }
    let left = folder.path().join(&hidden(folder.path())[0]);
    let path = left.join("journal.jsonl");
    let journal = std::fs::read_to_string(&path).unwrap();
    let mut lines: Vec<_> = journal.lines().map(str::to_owned).collect();
    assert!(lines.len() > 2, "two lines about text");
    // The first line about text was synced, and the chunk in progress has lost its end since.
    lines[1] = lines[1].replacen('{', "{\"synced\":true,", 1);
    std::fs::write(&path, lines.join("\n") + "\n").unwrap();
    std::fs::write(last_chunk(&left.join("made")), [0; 8]).unwrap();
    let summary = encode(&[&file], &tokenizer, &out, &options()).unwrap();
    assert!(summary.resumed_bytes > 0, "it started over");
    assert_eq!(files(&out), files(&whole));
}

#[test]
fn a_store_that_a_killed_process_moved_away_is_never_lost() {
    let (folder, file, tokenizer) = corpus(2_000);
    let other = folder.file("other.txt", text(3_000));
    let o = EncodeOptions { valid_fraction: 0.5, ..options() };
    for (name, moved) in [
        ("data", &["valid_chunks"][..]),
        ("data", &["tokenizer", "valid_chunks", "train_chunks"]),
        ("x_chunks", &["train_chunks"]),
    ] {
        let out = folder.path().join(name);
        let o = if name == "data" { &o } else { &options() };
        encode(&[&file], &tokenizer, &out, o).unwrap();
        let before = files(&out);
        // The leftovers of a process that is killed in `install`.
        let parent = if name == "data" { &out } else { folder.path() };
        let left = parent.join(format!(".{name}.99999999-0.partial"));
        std::fs::create_dir_all(left.join("old")).unwrap();
        std::fs::write(left.join(".lock"), "").unwrap();
        for entry in moved {
            let from = if name == "data" { out.join(entry) } else { out.clone() };
            std::fs::rename(from, left.join("old").join(entry)).unwrap();
        }
        if moved.len() == 3 {
            std::fs::create_dir(out.join("valid_chunks")).unwrap();
            std::fs::write(out.join("valid_chunks/store.json"), "new").unwrap();
        }
        // Another encoding to the same folder, which fails.
        let empty = folder.file("empty.txt", "");
        let error = encode(&[&empty], &tokenizer, &out, o).unwrap_err();
        assert_eq!(error.code(), "ERR_EMPTY_CORPUS");
        assert!(files(&out) == before, "{name} {moved:?}");
        encode(&[&other], &tokenizer, &out, o).unwrap();
        assert!(files(&out) != before && hidden(parent).is_empty());
    }
}
