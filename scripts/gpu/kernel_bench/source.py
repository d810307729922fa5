"""The kernels' sources: their signatures, their variants, and nvcc. Needs Python alone."""
import hashlib
import math
import os
import re
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from .preprocess import preprocessed, split

ROOT = Path(__file__).resolve().parents[3]
OPS = ROOT / "crates/kindling-core/src/ops"
FLAGS = ["-std=c++17", "-O3", "-cubin"]


@dataclass(frozen=True)
class Parameter:
    type: str
    name: str

    @property
    def is_pointer(self):
        return self.type.endswith("*")


@dataclass(frozen=True)
class Signature:
    parameters: tuple
    most_threads: int


@dataclass(frozen=True)
class Build:
    """A file to compile. A variant has macros, replaced text, or a tree of its own."""

    file: str
    defines: tuple = ()
    # (file, old, new), each found exactly once.
    replace: tuple = ()
    tree: Path = OPS
    # Keeps only the kernels of this head size and dtype, which compile in a tenth of the time.
    head_size: int = 0

    @property
    def key(self):
        text = repr((self.file, self.defines, self.replace, str(self.tree), self.head_size))
        return f"{self.file.split('/')[0]}-{hashlib.sha256(text.encode()).hexdigest()[:10]}"

    def text(self, file=None):
        """The file as this build compiles it."""
        file = file or self.file
        text = (self.tree / file).read_text()
        for name, old, new in self.replace:
            if name == file:
                if text.count(old) != 1:
                    raise ValueError(f"{file} holds {text.count(old)} times: {old}")
                text = text.replace(old, new)
        if self.head_size and file == self.file:
            text = re.sub(r"^PLAIN_KERNELS\(.*\)$", "", text, flags=re.M)
            text = re.sub(rf"^TENSOR_\w*\((?!{self.head_size}\b)[^\n]*\)$", "", text, flags=re.M)
        return text


def find_nvcc():
    home = os.environ.get("CUDA_HOME")
    places = [home and f"{home}/bin/nvcc", shutil.which("nvcc"), "/usr/local/cuda/bin/nvcc"]
    return next((place for place in places if place and os.path.exists(place)), None)


def compile_build(build, folder, nvcc, arch):
    """Writes KEY.cubin to the folder, or KEY.error. Returns the error, or None."""
    target = folder / f"{build.key}.cubin"
    try:
        own = folder / build.key
        for file in {build.file, *(name for name, _, _ in build.replace)}:
            (own / file).parent.mkdir(parents=True, exist_ok=True)
            (own / file).write_text(build.text(file))
        # Hopper's own instructions need the architecture with an a.
        code = {"sm_90": "90a"}.get(arch, arch.removeprefix("sm_"))
        target_code = f"-gencode=arch=compute_{code},code=sm_{code}"
        command = [nvcc, *FLAGS, target_code, f"-I{own}", f"-I{build.tree}"]
        # nvcc splits at commas that are not escaped.
        command += ["-D" + define.replace(",", "\\,") for define in build.defines]
        part = target.with_suffix(".part")
        done = subprocess.run([*command, "-o", part, own / build.file], capture_output=True, text=True, timeout=300)
        if done.returncode == 0:
            part.rename(target)
            return None
        problem = done.stderr.strip()
    except Exception as error:  # Whoever waits for the file must learn of it.
        problem = f"{type(error).__name__}: {error}"
    part = target.with_suffix(".error.part")
    part.write_text(problem)
    part.rename(target.with_suffix(".error"))
    return problem


def signatures(build):
    """The signatures of a file's kernels by name."""
    found = {}
    pattern = r'extern "C" __global__ void\s+__launch_bounds__\(([^),]*)[^)]*\)\s*(\w+)\(([^)]*)\)'
    text, _ = preprocessed(build.text(), build.defines)
    for threads, name, parameters in re.findall(pattern, text):
        parts = [" ".join(p.split()).rsplit(" ", 1) for p in parameters.split(",")]
        types = [kind.replace("const ", "").replace("__restrict__", "").replace(" *", "*").strip() for kind, _ in parts]
        plain = zip(types, (name for _, name in parts))
        found[name] = Signature(tuple(Parameter(*p) for p in plain), math.prod(map(int, threads.split("*"))))
    return found


def macro_numbers(build, name):
    """The numbers that a macro lists, with the build's own definitions."""
    _, macros = preprocessed(build.text(), build.defines)
    return [int(number) for number in split(macros.expand(name))]


@dataclass
class Launch:
    """A launch as plain data. `pointers` and `scalars` are the kernel's parameters by name."""

    kernel: str
    grid: tuple
    block: int
    pointers: str
    scalars: dict = field(default_factory=dict)
    shared_bytes: int = 0

    def problems(self, known):
        """What is wrong with it according to the signatures."""
        if self.kernel not in known:
            return [f"no kernel {self.kernel}"]
        signature, problems = known[self.kernel], []
        for what, wanted, given in [
            ("pointers", {p.name for p in signature.parameters if p.is_pointer}, set(self.pointers.split())),
            ("scalars", {p.name for p in signature.parameters if not p.is_pointer}, set(self.scalars)),
        ]:
            if wanted != given:
                text = f"{what} missing {sorted(wanted - given)}, unknown {sorted(given - wanted)}"
                problems.append(f"{self.kernel}: {text}")
        if self.block > signature.most_threads or self.block % 32:
            problems.append(f"{self.kernel}: {self.block} threads, at most {signature.most_threads}")
        limits = (2**31 - 1, 65535, 65535)
        if len(self.grid) != 3 or not all(0 < n <= most for n, most in zip(self.grid, limits)):
            problems.append(f"{self.kernel}: grid {self.grid}")
        if not 0 <= self.shared_bytes <= 227 * 1024:
            problems.append(f"{self.kernel}: {self.shared_bytes} bytes of shared memory")
        return problems


@dataclass
class Zero:
    """Sets a tensor to zero, as a part of what is timed."""

    name: str
    kernel: str = "zero"

    def problems(self, known):
        return []
