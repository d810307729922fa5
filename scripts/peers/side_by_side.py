#!/usr/bin/env python3
"""Compares the speed of training in Kindling and in PyTorch on this machine.

On the CPU, Kindling, PyTorch eager and PyTorch compiled are started together and take turns of a few
steps, one running while the others wait, so that changes in the machine's speed affect all three. On
a GPU, whose memory they would share, each round runs them one after the other. The result is the
median of our rounds over the median of PyTorch's better mode, and the same of their peak memory. Run
`npm run build` first, on an idle machine, with the interpreter that scripts/peers/setup.sh prints.

    side_by_side.py [--preset char tinystories] [--dtype f32 bf16] [--rounds 9] [--threads 2]
        [--steps 1] [--at-least 1.0] [--out docs/benchmarks/<date>-<machine>.json]

--steps is the number of steps of one round. --out appends the rounds to a file. Exits with 1 if a
ratio is below --at-least.
"""
import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import benchmark_file

HERE = Path(__file__).resolve().parent
CLI = HERE.parent.parent / "dist" / "cli" / "index.js"
STEPS = {"cpu": {"char": 40}, "cuda": {"char": 300}}
DEFAULT_STEPS = {"cpu": 1, "cuda": 6}
WARMUP = 2
PEER_MODES = ("eager", "compiled")


def with_peers(kindling, flags):
    """Returns the command of each training, PyTorch's with `flags`."""
    torch = [sys.executable, str(HERE / "torch_train.py"), *flags]
    return {"kindling": kindling, "eager": torch, "compiled": [*torch, "--compile"]}


def run_one_by_one(flags, rounds):
    """Runs whole benchmarks in turn; returns the speeds of each, and their last results."""
    commands = with_peers(["node", str(CLI), "bench", "train", *flags, "--json"], flags)
    speeds, results = {}, {}
    for _ in range(rounds):
        for name, command in commands.items():
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode != 0:
                sys.exit(f"failed: {' '.join(command)}\n{done.stdout}{done.stderr}")
            results[name] = json.loads(done.stdout.strip().splitlines()[-1])
            speeds.setdefault(name, []).append(results[name]["tokens_per_second"])
    return speeds, results


class Training:
    """A training that waits for its turn."""

    def __init__(self, command):
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.result = None
        self.wait()

    def wait(self):
        """Waits until the training is ready for its next turn, or has printed its result."""
        line = self.process.stdout.readline()
        if line.startswith("{"):
            self.result = json.loads(line)
        elif line.strip() != "ready":
            sys.exit(f"failed: {' '.join(map(str, self.process.args))}")

    def turn(self):
        """Lets the training run for one turn and returns its seconds."""
        started = time.perf_counter()
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        self.wait()
        return time.perf_counter() - started


def run_in_turns(preset, dtype, args, steps, flags):
    """Runs the trainings in turns of `steps` steps; returns the speeds of each, and their results."""
    # The end of the last turn is not seen apart from the end of the training: it is not counted.
    total = steps * (args.rounds + 1)
    numbers = map(str, [args.threads, total, WARMUP, steps])
    kindling = ["node", str(HERE / "train_in_turns.mjs"), preset, dtype, *numbers]
    schedule = ["--steps", str(total), "--warmup", str(WARMUP), "--turns", str(steps)]
    commands = with_peers(kindling, [*flags, *schedule])
    trainings = {name: Training(command) for name, command in commands.items()}
    times = {name: [] for name in trainings}
    for _ in range(args.rounds):
        for name, training in trainings.items():
            times[name].append(training.turn())
    results = {}
    for name, training in trainings.items():
        training.turn()
        results[name] = training.result
    tokens = {name: result["step_ms"] / 1000 * result["tokens_per_second"] * steps for name, result in results.items()}
    return {name: [tokens[name] / seconds for seconds in times[name]] for name in times}, results


def compare(preset, dtype, args):
    """Times one preset, prints the medians, and returns the run for the benchmark file."""
    kind = "cpu" if args.device == "cpu" else "cuda"
    steps = args.steps or STEPS[kind].get(preset, DEFAULT_STEPS[kind])
    flags = ["--preset", preset, "--dtype", dtype, "--device", args.device, "--threads", str(args.threads)]
    if kind == "cpu":
        speeds, results = run_in_turns(preset, dtype, args, steps, flags)
    else:
        speeds, results = run_one_by_one([*flags, "--steps", str(steps)], args.rounds)
    medians = {name: round(statistics.median(values), 1) for name, values in speeds.items()}
    mode = max(PEER_MODES, key=medians.get)
    ratio = round(medians["kindling"] / medians[mode], 3)
    memory = {name: result["peak_rss_mib"] for name, result in results.items()}
    memory_ratio = round(memory["kindling"] / memory[mode], 3)
    shown = {"preset": preset, "dtype": dtype, **medians, "ratio": ratio, "peak_rss_mib": memory}
    print(json.dumps({**shown, "memory_ratio": memory_ratio}), flush=True)
    rounds = list(zip(speeds["kindling"], speeds[mode]))
    return {
        "benchmark": "train",
        "preset": preset,
        "dtype": dtype,
        "device": args.device,
        "threads": args.threads,
        "unit": "tokens/s",
        "peer": f"{results[mode]['peer']}, {mode}",
        "commit": benchmark_file.commit(),
        "command": f"side_by_side.py {' '.join(flags)} --steps {steps} --rounds {args.rounds}",
        "ratio": ratio,
        "memory_ratio": memory_ratio,
        "rounds": [
            {"ours": round(ours, 1), "peer": round(theirs, 1), "ratio": round(ours / theirs, 2)}
            for ours, theirs in rounds
        ],
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", nargs="+", default=["char", "tinystories"])
    parser.add_argument("--dtype", nargs="+", choices=["f32", "bf16"], default=["f32"])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--at-least", type=float, default=1.0)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    runs = []
    for preset, dtype in itertools.product(args.preset, args.dtype):
        runs.append(compare(preset, dtype, args))
        if args.out:
            benchmark_file.append_runs(args.out, runs[-1:])
    sys.exit(0 if min(run["ratio"] for run in runs) >= args.at_least else 1)


if __name__ == "__main__":
    main()
