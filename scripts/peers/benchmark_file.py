"""Benchmark files: docs/benchmarks/<date>-<machine>.json, an object with the machine and an array of runs.

A run names its benchmark, settings, peer, commit and command, and lists its rounds, each with our
figure, the peer's and the ratio.
"""
import json
import os
import re
import subprocess
from datetime import date
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
ISA_FLAGS = {"avx2": "AVX2", "avx512f": "AVX-512", "avx512_bf16": "AVX512-BF16", "amx_tile": "AMX"}


def append_runs(path, runs):
    """Appends runs to a file, and creates it with the description of this machine if it does not exist."""
    path = Path(path)
    if path.exists():
        content = json.loads(path.read_text())
    else:
        content = {"format_version": 1, "date": date.today().isoformat(), "machine": machine(), "runs": []}
    content["runs"] += runs
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(content, indent=1) + "\n")
    partial.replace(path)


def machine():
    """Describes this machine by lscpu."""
    output = subprocess.run(["lscpu", "--json"], capture_output=True, text=True, check=True).stdout
    fields = flatten(json.loads(output)["lscpu"])
    flags = fields.get("Flags", "").split()
    l2 = re.match(r"([\d.]+) ?(KiB|MiB)(?: \((\d+) instances?\))?", fields.get("L2 cache", ""))
    l2_mib = float(l2[1]) / (1024 if l2[2] == "KiB" else 1) / int(l2[3] or 1) if l2 else None
    return {
        "cpu": fields.get("Model name"),
        "family": int(fields.get("CPU family", 0)),
        "model": int(fields.get("Model", 0)),
        "isa": ", ".join(name for flag, name in ISA_FLAGS.items() if flag in flags),
        "cores": len(os.sched_getaffinity(0)),
        "l2_mib_per_core": l2_mib,
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
    }


def flatten(entries):
    """Collects the fields of lscpu, nested ones included."""
    fields = {}
    for entry in entries:
        fields[entry["field"].rstrip(":")] = entry["data"]
        fields |= flatten(entry.get("children", []))
    return fields


def commit():
    """Returns the abbreviated commit of the working tree, with `+changes` if it has any."""
    git = ["git", "-c", "safe.directory=*", "-C", str(ROOT)]
    head = subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True)
    status = subprocess.run([*git, "status", "--porcelain"], capture_output=True, text=True)
    return head.stdout.strip() + ("+changes" if status.stdout.strip() else "")
