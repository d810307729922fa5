#!/usr/bin/env python3
"""Checks the CUDA kernels against PyTorch and times them beside it, at the sizes of gpt2-small-bench, batch 32.

    scripts/gpu/kernels.py [--only SECTION...] [--variants FILE.json] [--out FILE.json]
    scripts/gpu/kernels.py --dry-run     compiles, and compares launches with the sources; needs no GPU or PyTorch
    scripts/gpu/kernels.py --emulated LIB.so     checks tiny sizes over crates/kindling-fake-libcuda

Needs nvcc (--nvcc, CUDA_HOME or PATH) and Python with PyTorch. Compiles the kernels of this tree while it measures
the machine. Each kernel runs on random inputs over outputs filled with NaN and is compared with f64 by the relative
norm error, twice for the same bits. Times are medians by events, over several sets of inputs. A section that
fails or breaks the device does not stop the next. The last thing printed is a table; --out has every figure.
"""
import argparse
import json
import math
import os
import queue
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from unittest.mock import MagicMock

sys.path.insert(0, str(Path(__file__).resolve().parent))
from kernel_bench import attention, ops, products, variants  # noqa: E402
from kernel_bench.measure import Bench  # noqa: E402
from kernel_bench.sizes import TINY, Sizes  # noqa: E402
from kernel_bench.source import compile_build, find_nvcc, signatures  # noqa: E402

MEASURED = {"ceilings": products.ceilings, "products": products.products}
CASES = {
    "rms_norm": ops.rms_norm, "swiglu": ops.swiglu, "cross_entropy": ops.cross_entropy, "attention": attention.attention,
    "adamw": ops.adamw, "grad_norm": ops.grad_norm, "rope": ops.rope, "embedding": ops.embedding, "casts": ops.casts,
}
SECTIONS = [*MEASURED, *CASES]
# Of one section, and of the compilation of one file.
MOST_SECONDS = 90


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=SECTIONS, metavar="SECTION", help=", ".join(SECTIONS))
    parser.add_argument("--out", help="file for all figures")
    parser.add_argument("--variants", help="file of variants; see kernel_bench/variants.py")
    parser.add_argument("--reps", type=int, default=24, help="timed calls of each kernel")
    parser.add_argument("--seconds", type=float, default=150, help="no section starts later than this")
    parser.add_argument("--no-peers", dest="peers", action="store_false", help="times our kernels only")
    parser.add_argument("--no-compile", dest="compile", action="store_false", help="leaves out torch.compile")
    parser.add_argument("--head-rows", type=int, default=0, help="rows of a block of logits (default: the engine's)")
    parser.add_argument("--nvcc", default=find_nvcc())
    parser.add_argument("--arch", help="default: the device's, sm_90a for --dry-run")
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--dry-run", action="store_true")
    parser.add_argument("--emulated", metavar="LIB.so")
    parser.add_argument("--child", metavar="FOLDER", help=argparse.SUPPRESS)
    return parser.parse_args()


def sizes(options):
    if options.emulated:
        return TINY
    return Sizes(head_rows=options.head_rows, hopper=options.arch.startswith("sm_90"))


def layouts(options):
    """All (section, case, variant or None), made without PyTorch; and what is wrong with them."""
    described, s = variants.read(options.variants), sizes(options)
    found, problems = [], []
    for section in options.only:
        if section not in CASES:
            continue
        try:
            for case in CASES[section](MagicMock(), s, MagicMock()):
                found.append((section, case, None))
                for variant in variants.of_case(described, case, s):
                    if isinstance(variant, str):
                        problems.append(variant)
                    else:
                        found.append((section, case, variant))
        except Exception as error:
            problems.append(f"{section}: {type(error).__name__}: {error}")
    for _, case, variant in found:
        where = f"{case.name} {variant.name if variant else ''}".strip()
        try:
            known = signatures(variant.build if variant else case.build)
            for launch in variant.launches if variant else case.launches:
                problems += [f"{where}: {p}" for p in launch.problems(known)]
        except Exception as error:
            problems.append(f"{where}: {type(error).__name__}: {error}")
    return found, problems


def builds_of(found):
    return list({build.key: build for build in ((v or case).build for _, case, v in found)}.values())


def dry_run(options):
    found, problems = layouts(options)
    builds = builds_of(found)
    if options.nvcc:
        with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(options.jobs) as pool:
            compiled = list(pool.map(lambda b: compile_build(b, Path(folder), options.nvcc, options.arch), builds))
        problems += [f"{build.file} {build.defines or ''}: {error}" for build, error in zip(builds, compiled) if error]
    launches = sum(len((v or case).launches) for _, case, v in found)
    files = f"{len(builds)} files {'compiled' if options.nvcc else 'not compiled: no nvcc'}"
    print("\n".join([*problems, f"{len(found)} cases, {launches} launches, {files}: {len(problems)} problems"]))
    sys.exit(1 if problems else 0)


# The child: one process over the device.


class Random:
    def __init__(self, torch, device):
        self.torch, self.device = torch, device

    def __call__(self, shape, dtype):
        return self.torch.randn(shape, dtype=dtype, device=self.device)

    def uniform(self, shape):
        return self.torch.rand(shape, device=self.device)


def tell(**event):
    print("@" + json.dumps(finite(event), allow_nan=False), flush=True)


def finite(value):
    """The value with text for the numbers that JSON does not have."""
    if isinstance(value, dict):
        return {key: finite(one) for key, one in value.items()}
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def child(options):
    import torch

    from kernel_bench.device import Cuda

    seed = int(time.time())
    torch.manual_seed(seed)
    random = Random(torch, "cpu" if options.emulated else "cuda")
    if options.emulated:
        tell(machine={"device": "emulated", "torch": torch.__version__, "seed": seed})
    else:
        major, minor = torch.cuda.get_device_capability()
        device = {"device": torch.cuda.get_device_name(), "arch": f"sm_{major}{minor}"}
        tell(machine={**device, "torch": torch.__version__, "seed": seed})
        torch.backends.cuda.matmul.allow_tf32 = False
        import torch._functorch.config

        # Backward passes are timed several times over one graph.
        torch._functorch.config.donated_buffer = False
    cuda, s, described, modules = Cuda(torch, options.emulated), sizes(options), variants.read(options.variants), {}

    def module(build):
        if build.key not in modules:
            modules[build.key] = cuda.load(wait_for(Path(options.child), build) if not options.emulated else b"")
        return modules[build.key]

    bench = Bench(torch, cuda, options, module)
    for section in options.only:
        tell(section=section)
        try:
            for row in rows_of(section, bench, s, random, described):
                tell(row=row)
        except Exception as error:
            traceback.print_exc()
            tell(row={"op": section, "failed": f"{type(error).__name__}: {str(error)[:200]}"})
        if not options.emulated:
            # Ends this process if the device is broken; the parent starts another.
            torch.cuda.synchronize()
            torch.cuda.empty_cache()
    tell(section=None)


def wait_for(folder, build):
    """The compiled file's bytes."""
    for _ in range(int(10 * MOST_SECONDS)):
        if (error := folder / f"{build.key}.error").exists():
            raise RuntimeError(f"{build.file}: {error.read_text()[:500]}")
        if (cubin := folder / f"{build.key}.cubin").exists():
            return cubin.read_bytes()
        time.sleep(0.1)
    raise RuntimeError(f"{build.file} was not compiled in time")


def rows_of(section, bench, s, random, described):
    if section in MEASURED:
        if not bench.options.emulated:
            yield from MEASURED[section](bench, s, random)
        return
    for case in CASES[section](bench.torch, s, random):
        for variant in (None, *variants.of_case(described, case, s)):
            name = variant.name if hasattr(variant, "name") else variant or ""
            try:
                if isinstance(variant, str):
                    raise ValueError(variant)
                # The emulated device has the kernels of this tree only.
                if not bench.options.emulated or not variant or variant.build == case.build:
                    yield bench.run(case, variant)
            except Exception as error:
                traceback.print_exc()
                failed = f"{type(error).__name__}: {str(error)[:200]}"
                yield {"op": case.name, "variant": name, "shape": case.shape, "failed": failed}
                bench.synchronize()


# The parent: compiles, starts children, collects.


def run(options):
    if not options.nvcc and not options.emulated:
        sys.exit("nvcc was not found: set CUDA_HOME or --nvcc")
    started, report = time.time(), {"machine": {}, "rows": []}
    found, problems = layouts(options)
    for problem in problems:
        print(f"launch: {problem}", flush=True)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        pool = ThreadPoolExecutor(options.jobs)
        if not options.emulated:
            for build in builds_of(found):
                pool.submit(compile_build, build, Path(folder), options.nvcc, options.arch)
        left = list(options.only)
        while left:
            left = run_child(options, left, folder, started, report)
        pool.shutdown(wait=False, cancel_futures=True)
        report["seconds"] = time.time() - started
        save(options, report)
    print_table(report)
    failed = [r for r in report["rows"] if r.get("failed") or r.get("correct") is False or r.get("same_bits") is False]
    print(f"{len(report['rows'])} rows, {len(failed)} failed, {report['seconds']:.0f} s")
    sys.exit(1 if failed else 0)


def device_arch():
    command = ["nvidia-smi", "--query-gpu=compute_cap", "--format=csv,noheader"]
    try:
        capability = subprocess.run(command, capture_output=True, text=True, timeout=20).stdout.split()[0]
        number = int(capability.replace(".", ""))
        # From Hopper on, some instructions belong to one architecture.
        return f"sm_{number}{'a' if number >= 90 else ''}"
    except (OSError, IndexError, ValueError, subprocess.TimeoutExpired):
        return "sm_90a"


def run_child(options, sections, folder, started, report):
    """Runs the sections in a process; returns those that are left because it ended or hung."""
    own = {"--only", "--child", "--out", "--arch"}
    ours = ["--child", folder, "--arch", options.arch, "--only", *sections]
    command = [sys.executable, __file__, *passed_on(own), *ours]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    lines = queue.Queue()

    def read():
        for line in process.stdout:
            lines.put(line)
        lines.put(None)

    threading.Thread(target=read, daemon=True).start()
    current, since, problem, finished, late = None, time.time(), "ended", False, False
    while True:
        try:
            line = lines.get(timeout=1)
        except queue.Empty:
            if time.time() - since > MOST_SECONDS:
                problem = f"stopped after {MOST_SECONDS} s"
                break
            continue
        if line is None:
            break
        if not line.startswith("@"):
            print(line, end="", flush=True)
            continue
        event = json.loads(line[1:])
        report["machine"] = event.get("machine", report["machine"])
        if "section" in event:
            current, since = event["section"], time.time()
            finished, late = current is None, since - started > options.seconds
            if finished or late:
                break
        if "row" in event:
            report["rows"].append({"section": current, **event["row"]})
            print(summary(event["row"]), flush=True)
            save(options, report)
    if not finished:
        process.kill()
    try:
        process.wait(timeout=20)
    except subprocess.TimeoutExpired:
        process.kill()
    if finished:
        return []
    if late or current is None:
        problem = "no time left" if late else "the process did not start"
        missing = sections[sections.index(current) :] if current else sections
        report["rows"] += [{"section": name, "op": name, "failed": problem} for name in missing]
        return []
    report["rows"].append({"section": current, "op": current, "failed": f"the process {problem}"})
    return sections[sections.index(current) + 1 :]


def passed_on(own):
    """This process's arguments without those named and their values."""
    kept, skipping = [], False
    for argument in sys.argv[1:]:
        if argument.startswith("--"):
            skipping = argument.split("=")[0] in own
        if not skipping:
            kept.append(argument)
    return kept


def save(options, report):
    if options.out:
        Path(options.out).write_text(json.dumps(report, indent=1) + "\n")


COLUMNS = [("op", 46), ("shape", 22), ("us", 9), ("torch us", 9), ("x torch", 7), ("rate", 12), ("error", 8), ("", 0)]


def cells(row):
    times = {name: us for name, us in row.get("torch_us", {}).items() if isinstance(us, float)}
    best = min(times, key=times.get) if times else None
    us, number = row.get("us"), lambda x: f"{x:.1f}" if x else ""
    rate = f"{row['tflop_per_s']:.0f} TFLOP/s" if "tflop_per_s" in row else ""
    rate = f"{row['gb_per_s'] / 1000:.2f} TB/s" if "gb_per_s" in row else rate
    error = f"{float(row['error']):.1e}" if "error" in row else ""
    if row.get("correct") is False:
        error += f" WRONG {','.join(row['wrong'])}"
    if row.get("same_bits") is False:
        error += " BITS DIFFER"
    peers = ", ".join(f"{name} {us if isinstance(us, str) else f'{us:.1f}'}" for name, us in row.get("torch_us", {}).items())
    parts = ", ".join(f"{name} {us:.1f}" for name, us in row.get("launches_us", {}).items())
    note = row.get("failed") and f"FAILED {row['failed'][:120]}"
    note = note or "; ".join(x for x in (parts, peers if us else "") if x)
    ratio = f"{times[best] / us:.2f}" if best and us else ""
    name = f"{row['op']} {row.get('variant', '')}".strip()
    return [name, row.get("shape", ""), number(us), number(times.get(best)), ratio, rate, error, note]


def summary(row):
    return "  ".join(cell for cell in cells(row) if cell)


def print_table(report):
    print("\n" + json.dumps(report["machine"]))
    print(" ".join(name.ljust(width) for name, width in COLUMNS).rstrip())
    for row in report["rows"]:
        print(" ".join(cell.ljust(width) for cell, (_, width) in zip(cells(row), COLUMNS)).rstrip())


def main():
    options = arguments()
    options.arch = options.arch or ("sm_90a" if options.dry_run or options.emulated else device_arch())
    if options.child:
        child(options)
    elif options.dry_run:
        dry_run(options)
    else:
        run(options)


if __name__ == "__main__":
    main()
