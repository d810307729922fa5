#!/usr/bin/env python3
"""Compares the merges of `kindling tokenizer train` with those of Hugging Face's trainer, in order.

    python scripts/campaigns/bpe-merges.py FILE... [--vocab-size 10000] [--fixture]

Needs the package tokenizers, and a built checkout. The two break ties differently: Kindling by the greater
pair of byte strings, Hugging Face by the lower ids. Up to the first tie that they break differently, all
merges must be equal. After it the order differs, so both sequences are checked against a plain
implementation of BPE that counts all pairs: each merge must be one of the most frequent pairs. --fixture
writes the merges up to that tie to the fixtures. The last line is `N passed, N failed`.
"""
import argparse
import collections
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from tokenizers import Tokenizer, models, pre_tokenizers, trainers

ROOT = Path(__file__).resolve().parents[2]


def hugging_face(file, vocab_size):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    # train() reads files by lines, which would end a word at the end of its line.
    text = file.read_text(encoding="utf-8", errors="replace")
    tokenizer.train_from_iterator(
        [text], trainers.BpeTrainer(vocab_size=vocab_size, initial_alphabet=alphabet, show_progress=False))
    merges = json.loads(tokenizer.to_str())["model"]["merges"]
    return [tuple(merge) if isinstance(merge, list) else tuple(merge.split(" ")) for merge in merges]


def kindling(file, vocab_size, folder):
    subprocess.run(
        ["node", ROOT / "dist/cli/index.js", "tokenizer", "train", file, "--vocab-size", str(vocab_size), "--special-tokens",
         "<|none of the text|>", "--out", folder], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    lines = (Path(folder) / "merges.txt").read_text(encoding="utf-8").split("\n")
    return [tuple(line.split(" ")) for line in lines if line and not line.startswith("#version")]


class Counts:
    """Counts of all pairs, and the words that hold each, by definition."""

    def __init__(self, file):
        level = pre_tokenizers.ByteLevel(add_prefix_space=False)
        text = file.read_text(encoding="utf-8", errors="replace")
        words = collections.Counter(word for word, _ in level.pre_tokenize_str(text))
        self.words = [(list(word), count) for word, count in words.items()]
        self.counts, self.holders = collections.Counter(), collections.defaultdict(set)
        for number in range(len(self.words)):
            self.enter(number, 1)

    def enter(self, number, sign):
        symbols, count = self.words[number]
        for pair in zip(symbols, symbols[1:]):
            self.counts[pair] += sign * count
            self.holders[pair].add(number)

    def merge(self, pair):
        for number in self.holders.pop(pair):
            self.enter(number, -1)
            symbols, at = self.words[number][0], 0
            while at + 1 < len(symbols):
                if (symbols[at], symbols[at + 1]) == pair:
                    symbols[at:at + 2] = ["".join(pair)]
                at += 1
            self.enter(number, 1)

    def best(self):
        most = max(self.counts.values(), default=0)
        return most, {pair for pair, count in self.counts.items() if count == most}


def invalid(merges, counts):
    """Returns the first merge that is not one of the most frequent pairs, or None, and the number of
    merges without a tie."""
    alone = 0
    for number, merge in enumerate(merges):
        most, candidates = counts.best()
        if merge not in candidates:
            return f"merge {number}: {merge}, where {candidates} occur {most} times", alone
        alone += len(candidates) == 1
        counts.merge(merge)
    return None, alone


def compare(file, vocab_size):
    """Returns what is wrong or None, the merges before the first tie that is broken differently, and the
    number of merges without a tie."""
    theirs = hugging_face(file, vocab_size)
    with tempfile.TemporaryDirectory() as folder:
        # One entry more, for the special token that Hugging Face's vocabulary lacks.
        ours = kindling(file, vocab_size + 1, folder)
    same = next((n for n, (our, their) in enumerate(zip(ours, theirs)) if our != their), min(len(ours), len(theirs)))
    counts = Counts(file)
    for merge in ours[:same]:
        counts.merge(merge)
    tied = counts.best()[1]
    wrong = None
    if len(ours) != len(theirs):
        wrong = f"{len(ours)} merges and {len(theirs)}"
    elif same < len(ours) and not {ours[same], theirs[same]} <= tied:
        wrong = f"merge {same}: {ours[same]} and {theirs[same]}, where the most frequent are {tied}"
    for who, merges in [("Kindling", ours), ("Hugging Face", theirs)]:
        found, alone = invalid(merges, Counts(file))
        wrong = wrong or (found and f"{who}, {found}")
    return wrong, theirs[:same], alone


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--vocab-size", type=int, default=10_000)
    parser.add_argument("--fixture", action="store_true")
    options = parser.parse_args()
    passed = failed = 0
    fixture = {}
    for file in options.files:
        wrong, same, alone = compare(file, options.vocab_size)
        fixture[file.name] = [" ".join(merge) for merge in same]
        print(f"{'FAILED' if wrong else 'ok'}: {file}: {wrong or 'all merges are most frequent pairs'}; {len(same)} the same up to"
              f" the first tie broken differently, {alone} of {options.vocab_size - 256} without a tie", flush=True)
        passed, failed = passed + (not wrong), failed + bool(wrong)
    if options.fixture and not failed:
        text = json.dumps(fixture, indent=0, ensure_ascii=False)
        (ROOT / "crates/kindling-core/tests/fixtures/tokenizer/hugging_face_merges.json").write_text(text + "\n")
    print(f"{passed} passed, {failed} failed")
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
