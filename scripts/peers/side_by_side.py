#!/usr/bin/env python3
"""Compares `kindling bench train` with PyTorch on this machine: rounds of ours, PyTorch eager, PyTorch compiled, in turn,
so that a change of the machine's speed meets all three. The median of our rounds over the better median of PyTorch's two
is the ratio. Run it with the interpreter that scripts/peers/setup.sh prints, after `npm run build`, on an idle machine.

    side_by_side.py [--preset char tinystories] [--dtype f32] [--rounds 3] [--threads 2] [--at-least 1.0]

Ends with 1 if a ratio is below --at-least.
"""
import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
CLI = HERE.parent.parent / "dist" / "cli" / "index.js"
STEPS = {"char": 300}
STEPS_OF_OTHERS = 6


def tokens_per_second(command):
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"failed: {' '.join(command)}\n{done.stdout}{done.stderr}")
    return json.loads(done.stdout.strip().splitlines()[-1])["tokens_per_second"]


def compare(preset, args):
    steps = args.steps or STEPS.get(preset, STEPS_OF_OTHERS)
    common = ["--preset", preset, "--dtype", args.dtype, "--device", args.device, "--steps", str(steps)]
    common += ["--threads", str(args.threads)]
    torch = [sys.executable, str(HERE / "torch_train.py"), *common]
    commands = {
        "kindling": ["node", str(CLI), "bench", "train", *common, "--json"],
        "eager": torch,
        "compiled": [*torch, "--compile"],
    }
    speeds = {name: [] for name in commands}
    for _ in range(args.rounds):
        for name, command in commands.items():
            speeds[name].append(tokens_per_second(command))
            print(f"{preset} {name}: {speeds[name][-1]:.0f} tokens/s", file=sys.stderr)
    medians = {name: statistics.median(values) for name, values in speeds.items()}
    ratio = medians["kindling"] / max(medians["eager"], medians["compiled"])
    print(json.dumps({"preset": preset, "dtype": args.dtype, **medians, "ratio": round(ratio, 3)}))
    return ratio


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", nargs="+", default=["char", "tinystories"])
    parser.add_argument("--dtype", choices=["f32", "bf16"], default="f32")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--at-least", type=float, default=1.0)
    args = parser.parse_args()
    ratios = [compare(preset, args) for preset in args.preset]
    sys.exit(0 if min(ratios) >= args.at_least else 1)


if __name__ == "__main__":
    main()
