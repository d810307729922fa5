#!/usr/bin/env python3
"""Compares the speed of training in Kindling and in PyTorch on this machine.

A round times Kindling, PyTorch eager and PyTorch compiled in turn, so that changes in the machine's
speed affect all three. The result is the median of our rounds over the median of PyTorch's better
mode. Run `npm run build` first, on an idle machine, with the interpreter that scripts/peers/setup.sh
prints.

    side_by_side.py [--preset char tinystories] [--dtype f32] [--rounds 3] [--threads 2]
        [--at-least 1.0] [--out docs/benchmarks/<date>-<machine>.json]

--out appends the rounds to a file. Exits with 1 if a ratio is below --at-least.
"""
import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

import benchmark_file

HERE = Path(__file__).resolve().parent
CLI = HERE.parent.parent / "dist" / "cli" / "index.js"
STEPS = {"char": 300}
DEFAULT_STEPS = 6
PEER_MODES = ("eager", "compiled")


def run_benchmark(command):
    """Runs a benchmark and returns the JSON object on its last line."""
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"failed: {' '.join(command)}\n{done.stdout}{done.stderr}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def compare(preset, args):
    """Times one preset, prints the medians, and returns the run for the benchmark file."""
    steps = args.steps or STEPS.get(preset, DEFAULT_STEPS)
    flags = ["--preset", preset, "--dtype", args.dtype, "--device", args.device]
    flags += ["--steps", str(steps), "--threads", str(args.threads)]
    torch = [sys.executable, str(HERE / "torch_train.py"), *flags]
    commands = {
        "kindling": ["node", str(CLI), "bench", "train", *flags, "--json"],
        "eager": torch,
        "compiled": [*torch, "--compile"],
    }
    peer = ""
    speeds = {name: [] for name in commands}
    for _ in range(args.rounds):
        for name, command in commands.items():
            result = run_benchmark(command)
            speeds[name].append(result["tokens_per_second"])
            peer = result.get("peer", peer)
            print(f"{preset} {name}: {speeds[name][-1]:.0f} tokens/s", file=sys.stderr)
    medians = {name: statistics.median(values) for name, values in speeds.items()}
    mode = max(PEER_MODES, key=medians.get)
    ratio = round(medians["kindling"] / medians[mode], 3)
    print(json.dumps({"preset": preset, "dtype": args.dtype, **medians, "ratio": ratio}))
    return {
        "benchmark": "train",
        "preset": preset,
        "dtype": args.dtype,
        "device": args.device,
        "threads": args.threads,
        "unit": "tokens/s",
        "peer": f"{peer}, {mode}",
        "commit": benchmark_file.commit(),
        "command": f"kindling bench train {' '.join(flags)}",
        "ratio": ratio,
        "rounds": [
            {"ours": ours, "peer": theirs, "ratio": round(ours / theirs, 2)}
            for ours, theirs in zip(speeds["kindling"], speeds[mode])
        ],
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", nargs="+", default=["char", "tinystories"])
    parser.add_argument("--dtype", choices=["f32", "bf16"], default="f32")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--at-least", type=float, default=1.0)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    runs = []
    for preset in args.preset:
        runs.append(compare(preset, args))
        if args.out:
            benchmark_file.append_runs(args.out, runs[-1:])
    sys.exit(0 if min(run["ratio"] for run in runs) >= args.at_least else 1)


if __name__ == "__main__":
    main()
