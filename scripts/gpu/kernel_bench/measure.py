"""Checks a kernel against a reference in f64 and times it by events, beside functions of PyTorch."""
import statistics
import time
from dataclasses import dataclass, field
from typing import Callable

from .source import Build, Zero, signatures

# Bytes that the input sets of a measurement hold together, so that none is read from the L2 cache.
ROTATED_BYTES = 400e6


@dataclass
class Case:
    """One row of the table: launches over named tensors, what they must compute, and what PyTorch has for it."""

    name: str
    shape: str
    build: Build
    launches: list
    # () -> tensors by name. Names of the launches' pointers; None is a null pointer.
    make: Callable
    # tensors -> expected outputs by name, f64 where it matters.
    reference: Callable
    # Largest relative norm error of each output.
    tolerance: dict
    # Outputs that are read as well: overwritten in place or added to.
    updated: tuple = ()
    # Filled with NaN beside the outputs.
    scratch: tuple = ()
    # (name, tensors -> function) of PyTorch's equivalents.
    peers: dict = field(default_factory=dict)
    # Outputs whose columns are several results, compared one by one.
    parts: dict = field(default_factory=dict)
    bytes: float = 0
    flops: float = 0


class Bench:
    def __init__(self, torch, cuda, options, module):
        self.torch, self.cuda, self.options, self.module = torch, cuda, options, module
        self.device = "cpu" if options.emulated else "cuda"

    def synchronize(self):
        if self.device == "cuda":
            self.torch.cuda.synchronize()

    def run(self, case, variant=None):
        """Checks and times a case; returns its row."""
        build = variant.build if variant else case.build
        launches = variant.launches if variant and variant.launches else case.launches
        known = signatures(build)
        problems = [p for launch in launches for p in launch.problems(known)]
        row = {"op": case.name, "variant": variant.name if variant else "", "shape": case.shape}
        if problems:
            return {**row, "failed": "; ".join(problems)}
        module = self.module(build)

        def bind(tensors):
            return [
                tensors[x.name].zero_ if isinstance(x, Zero) else self.cuda.bound(module, known[x.kernel], x, tensors)
                for x in launches
            ]

        def make():
            return case.make() | {name: self.scratch(*of) for name, of in (variant.scratch if variant else {}).items()}

        tensors = make()
        row |= self.check(case, tensors, bind(tensors))
        if self.device == "cpu":
            return row
        sets = [tensors]
        size = sum({t.data_ptr(): t.nbytes for t in tensors.values() if t is not None}.values())
        while size * len(sets) < ROTATED_BYTES and len(sets) < 8:
            sets.append(make())
        row["us"] = self.time([sequence(bind(tensors)) for tensors in sets])
        row["launches_us"] = {}
        if len(launches) > 1:
            parts = zip(*(bind(tensors) for tensors in sets))
            row["launches_us"] = {x.kernel: self.time(list(part)) for x, part in zip(launches, parts)}
        if case.bytes:
            row["gb_per_s"] = case.bytes / row["us"] / 1e3
        if case.flops:
            row["tflop_per_s"] = case.flops / row["us"] / 1e6
        if not variant:
            row["torch_us"] = self.time_peers(case, sets)
        return row

    def scratch(self, dtype, sizes):
        kinds = {"f32": self.torch.float32, "bf16": self.torch.bfloat16, "i32": self.torch.int32}
        return self.torch.zeros(sizes, dtype=kinds[dtype], device=self.device)

    def time_peers(self, case, sets):
        times = {}
        for name, peer in case.peers.items() if self.options.peers else ():
            if "compiled" in name and not self.options.compile:
                continue
            try:
                times[name] = self.time([peer(tensors) for tensors in sets])
            except Exception as error:  # One peer's failure must not hide the others.
                times[name] = f"failed: {str(error).splitlines()[0][:100] if str(error) else type(error).__name__}"
        return times

    def check(self, case, tensors, launches):
        before = {name: tensors[name].clone() for name in case.updated}
        expected = case.reference({**tensors, **before})
        runs = []
        for _ in range(2):
            for name in {*case.tolerance, *case.scratch} - set(case.updated):
                tensors[name].fill_(float("nan"))
            for name, values in before.items():
                tensors[name].copy_(values)
            for launch in launches:
                launch()
            self.synchronize()
            runs.append({name: tensors[name].clone() for name in case.tolerance})
        errors, tolerance = {}, {}
        for name, limit in case.tolerance.items():
            parts = case.parts.get(name, (name,))
            halves = (x.chunk(len(parts), dim=-1) for x in (runs[0][name], expected[name]))
            for part, actual, wanted in zip(parts, *halves):
                errors[part], tolerance[part] = self.error(actual, wanted), limit
        same = all(self.same_bits(runs[0][name], runs[1][name]) for name in case.tolerance)
        excess = {name: error / max(tolerance[name], 1e-12) for name, error in errors.items()}
        worst = max(errors, key=lambda name: excess[name] if excess[name] == excess[name] else float("inf"))
        wrong = [name for name, error in errors.items() if not error <= tolerance[name]]
        return {"errors": errors, "error": errors[worst], "correct": not wrong, "wrong": wrong, "same_bits": same}

    def error(self, actual, expected):
        """Norm of the difference relative to the norm of what is expected."""
        expected = expected.double()
        return ((actual.double() - expected).norm() / expected.norm().clamp_min(1e-30)).item()

    def same_bits(self, a, b):
        kinds = {2: self.torch.int16, 4: self.torch.int32, 8: self.torch.int64}
        kind = kinds[a.element_size()]
        return self.torch.equal(a.view(kind), b.view(kind))

    def time(self, calls):
        """Median time of a call in us, with the calls in turn.

        The device sleeps first while the calls are queued, so that no time of the host is measured.
        """
        torch, reps = self.torch, self.options.reps
        for call in calls[:2] * 2:
            call()
        torch.cuda.synchronize()
        started = time.perf_counter()
        calls[0]()
        host = time.perf_counter() - started
        torch.cuda.synchronize()
        events = [(torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)) for _ in range(reps)]
        torch.cuda._sleep(int(2e9 * min(0.1, 0.001 + 1.5 * reps * host)))
        for i, (start, end) in enumerate(events):
            start.record()
            calls[i % len(calls)]()
            end.record()
        torch.cuda.synchronize()
        return 1000 * statistics.median(start.elapsed_time(end) for start, end in events)


def sequence(launches):
    """A function that queues the launches in order."""

    def queue():
        for launch in launches:
            launch()

    return launches[0] if len(launches) == 1 else queue
