#!/usr/bin/env python3
"""Compares Kindling's ids with tiktoken's, for GPT-2's vocabulary and each named pattern, on random strings
and whole files.

    python scripts/campaigns/tokenizer-fuzz.py --strings 10000000 [--files FILE...] [--mixed MB]
        [--patterns gpt2 cl100k llama3]

Needs tiktoken and numpy, and a built checkout. The strings are made of pieces that patterns treat
specially (contractions, all kinds of white space, digits of several scripts, marks, emoji, source code,
invalid UTF-8), some of them repeated up to 100 times, and of random code points. They are joined by
<|endoftext|> into files that `kindling encode` reads, and every id is compared. Files are encoded as one
text. Mixed text is made of parts of the files cut at any byte, of such strings, and of runs of one
character, up to 20,000 long. The last line is `N passed, N failed`.
"""
import argparse
import json
import random
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy
import tiktoken

ROOT = Path(__file__).resolve().parents[2]
FIXTURES = ROOT / "crates/kindling-core/tests/fixtures/tokenizer"
END = "<|endoftext|>"
BATCH = 200_000
TIKTOKEN = {
    "gpt2": r"'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s",
    "cl100k": r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$|\s*[\r\n]|\s+(?!\S)|\s",
    "llama3": r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
}
PIECES = [
    *"abcdefghijklmnopqrstuvwxyzABCDSTLVE0123456789", *"  \n\n\t\r.,;:!?-_=+*/\\(){}[]<>'\"#@$%^&|~`\0\x0b\x0c\x1c\x7f",
    "'s", "'S", "'ll", "'LL", "'ve", "'Re", "'d", "'m", "'t", "'\u017f", "''", "the", " the", " and", "ing", "tion",
    "  ", "    ", "\n\n", "\r\n", " \n ", "\t\t", " " * 40, "\n" * 40, "x" * 60, "=" * 70, "1" * 50,
    "é", "ß", "ñ", "ü", "Ж", "привет", "λ", "日", "本語", "、", "。", "中文", "한국", "مرحبا", "שלום", "नमस्ते", "ไทย",
    "²", "¼", "٣", "४", "Ⅷ", "①", "𝟘", "\u0301", "\u0308\u0323", "\u200d", "\ufe0f", "😀", "👩\u200d👩\u200d👧", "🏳️",
    "\xa0", "\x85", "\u1680", "\u2003", "\u2028", "\u202f", "\u3000", "\u200b", "\ufeff", "\ufffd", "𠀀", "\U0010ffff",
    "\U0001f1e9\U0001f1ea", "\U0001f44d\U0001f3fd", "1\ufe0f\u20e3", "\u1112\u1161\u11ab", "e\u0301\u0323", "\ufdfa", "\ufb01", "\u01c5",
    "#include <", "->", "::", "//", "/* ", " */", "\t\tif (", ") {\n", "}\n\n", "0x1F", "x_1", "&&", "!=", "</div>", "\\n", "def f(",
    "<|", "|>", "<|endof", "text|>", b"\xff", b"\xc3", b"\xe2\x82", b"\xf0\x9f\x98", b"\xed\xa0\x80", b"\x80", b"\xc0\xaf",
]
PIECES = [piece if isinstance(piece, bytes) else piece.encode() for piece in PIECES]


def byte_characters():
    printable = list(range(33, 127)) + list(range(161, 173)) + list(range(174, 256))
    rest = [b for b in range(256) if b not in printable]
    return {**{chr(b): b for b in printable}, **{chr(256 + i): b for i, b in enumerate(rest)}}


def any_character(draw):
    code = draw.randrange(1 << draw.choice([7, 8, 11, 12, 16, 17, 20]))
    return b"" if 0xD800 <= code < 0xE000 else chr(code).encode()


def random_strings(draw, count):
    out = []
    for _ in range(count):
        pieces = draw.sample(PIECES, draw.choice([2, 4, 8, 30]))
        kind = draw.randrange(8)
        if kind == 0:
            pieces.append(draw.choice(pieces) * draw.randrange(2, 100))
        elif kind == 1:
            pieces += [any_character(draw) for _ in range(10)]
        string = b"".join(draw.choices(pieces, k=draw.randrange(1, 16)))
        out.append(string if END.encode() not in string else b"")
    return out


def mixed_texts(draw, files, size):
    """Returns texts of about a megabyte, `size` bytes in all."""
    sources = [Path(file).read_bytes() for file in files]
    runs = [run.encode() for run in [" ", "\n", "\r\n", "\t", " \n", "\u3000", "a", "Z", "=", "1", "日", "😀", "\u0301", "٣"]]
    texts = []
    while sum(map(len, texts)) < size:
        text = bytearray()
        while len(text) < 1_000_000:
            source = draw.choice(sources)
            at = draw.randrange(len(source))
            text += source[at : at + draw.randrange(1, 40_000)]
            text += b"".join(random_strings(draw, draw.randrange(20)))
            if draw.randrange(4) == 0:
                text += draw.choice(runs) * draw.randrange(1, draw.choice([100, 1000, 20_000]))
        while END.encode() in text:
            text = text.replace(END.encode(), b"")
        texts.append(bytes(text))
    return texts


class Peers:
    def __init__(self, pattern, folder):
        vocab = json.loads((FIXTURES / "gpt2_vocab.json").read_text())
        table = byte_characters()
        ranks = {bytes(table[c] for c in token): i for token, i in vocab.items() if token != END}
        self.tiktoken = tiktoken.Encoding(
            pattern, pat_str=TIKTOKEN[pattern], mergeable_ranks=ranks, special_tokens={END: vocab[END]})
        merges = (FIXTURES / "gpt2_merges.txt").read_text(encoding="utf-8").split("\n")
        level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
        split = {"type": "Split", "pattern": {"Regex": TIKTOKEN[pattern]}, "behavior": "Isolated", "invert": False}
        self.folder = folder
        self.tokenizer = folder / f"{pattern}.json"
        self.tokenizer.write_text(json.dumps({
            "version": "1.0", "normalizer": None,
            "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, level]},
            "added_tokens": [{"id": vocab[END], "content": END, "special": True}],
            "model": {"type": "BPE", "vocab": vocab,
                      "merges": [line for line in merges if line and not line.startswith("#version")]}}))

    def kindling(self, path, threads):
        out = self.folder / "ids_chunks"
        shutil.rmtree(out, ignore_errors=True)
        subprocess.run(
            ["node", ROOT / "dist/cli/index.js", "encode", path, "--tokenizer", self.tokenizer, "--out", out,
             "--threads", str(threads), "--chunk-size", "100000000", "--json"],
            check=True, stdout=subprocess.DEVNULL)
        chunks = sorted(out.glob("*.dat"), key=lambda p: int(re.findall(r"\d+", p.name)[-1]))
        return numpy.concatenate([numpy.fromfile(chunk, "<i4") for chunk in chunks])

    def same(self, strings, threads):
        path = self.folder / "text.txt"
        path.write_bytes(END.encode().join(strings))
        texts = [string.decode("utf-8", errors="replace") for string in strings]
        end = self.tiktoken.eot_token
        expected = []
        for ids in self.tiktoken.encode_ordinary_batch(texts, num_threads=2):
            expected += ids
            expected.append(end)
        expected = numpy.array(expected[:-1], "<i4")
        got = self.kindling(path, threads)
        if numpy.array_equal(got, expected):
            return True
        length = min(len(got), len(expected))
        at = int(numpy.argmax(got[:length] != expected[:length])) if length else 0
        print(f"differ at id {at}: {got[at - 3:at + 5]} and {expected[at - 3:at + 5]},"
              f" near {self.tiktoken.decode_bytes(expected[max(0, at - 5):at + 5].tolist())!r}", flush=True)
        return False


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--strings", type=int, default=10_000_000)
    parser.add_argument("--files", nargs="*", default=[])
    parser.add_argument("--mixed", type=int, default=0, help="megabytes out of the files")
    parser.add_argument("--patterns", nargs="+", default=list(TIKTOKEN))
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    passed = failed = 0
    with tempfile.TemporaryDirectory() as folder:
        for pattern in options.patterns:
            peers = Peers(pattern, Path(folder))
            if options.mixed:
                texts = mixed_texts(random.Random(options.seed), options.files, options.mixed * 1_000_000)
                size = sum(map(len, texts))
                ok = peers.same(texts, 2)
                print(f"{'ok' if ok else 'FAILED'}: {pattern}, {size} bytes of mixed text", flush=True)
                passed, failed = passed + ok, failed + (not ok)
            for file in options.files if not options.mixed else []:
                # tiktoken's engine gives up on very long texts, so they are split at ends of lines.
                lines = Path(file).read_bytes().splitlines(keepends=True)
                parts, part, size = [], [], 0
                for line in lines:
                    part.append(line)
                    size += len(line)
                    if size > 1_000_000:
                        parts.append(b"".join(part))
                        part, size = [], 0
                ok = peers.same([*parts, b"".join(part)], 2)
                print(f"{'ok' if ok else 'FAILED'}: {pattern}, {file}", flush=True)
                passed, failed = passed + ok, failed + (not ok)
            done, good = 0, True
            draw = random.Random(options.seed)
            while done < options.strings:
                count = min(BATCH, options.strings - done)
                good &= peers.same(random_strings(draw, count), 1 + done // BATCH % 3)
                done += count
            if options.strings:
                print(f"{'ok' if good else 'FAILED'}: {pattern}, {done} random strings", flush=True)
                passed, failed = passed + good, failed + (not good)
    print(f"{passed} passed, {failed} failed")
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
