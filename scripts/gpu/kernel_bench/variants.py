"""Variants of kernels, from --variants FILE.json: a list of objects with the keys

    name       shown in the table
    op         a name of the table's first column: "attention backward"
    tree       a folder with the files of crates/kindling-core/src/ops (default: that folder)
    defines    macros for nvcc: ["KINDLING_ATTENTION_FORWARD_64=1,64,1,3"]
    replace    text to change, each found exactly once: [["attention/cuda.cu", "old", "new"]]
    launches   instead of the op's own, in order: {"kernel", "grid": [x, y, z], "block", "shared_bytes",
               "pointers": "a b", "scalars": {"n": 1}}, by the names of the kernel's parameters; {"zero": "a"} clears
    scratch    tensors for these launches: {"a": ["f32", [sizes]]}

Numbers may be expressions over batch, positions, heads, head_size, d_model, d_ff, vocab, rows and ceil(a, b). The
tensors that exist for an op are those of its `make` in this folder. Without `launches`, the op's own are built
from the variant's source, so that tile sizes named in it count.
"""
import json
from dataclasses import dataclass, replace
from pathlib import Path

from .attention import backward_launches, forward_launches, joint_launches, mma_launches, two_launches
from .sizes import ceil
from .source import Launch, Zero

OWN = {
    "attention forward": forward_launches,
    "attention forward by mma": mma_launches,
    "attention backward": backward_launches,
    "attention backward by mma": joint_launches,
    "attention backward in two": two_launches,
}


@dataclass
class Variant:
    name: str
    build: object
    launches: list
    scratch: dict


def read(path):
    return json.loads(Path(path).read_text()) if path else []


def of_case(described, case, s):
    """The variants of a case; those that cannot be laid out are strings that say why."""
    for one in described:
        if one["op"] == case.name:
            try:
                yield variant(one, case, s)
            except Exception as error:
                yield f"{one.get('name')}: {type(error).__name__}: {error}"


def variant(one, case, s):
    build = replace(
        case.build,
        defines=tuple(one.get("defines", ())),
        replace=tuple(tuple(x) for x in one.get("replace", ())),
        **({"tree": Path(one["tree"]).resolve()} if "tree" in one else {}),
    )
    names = {n: getattr(s, n) for n in ("batch", "positions", "heads", "head_size", "d_model", "d_ff", "vocab", "rows")}

    def number(x):
        return int(eval(x, {"__builtins__": {}}, names | {"ceil": ceil, "min": min, "max": max})) if isinstance(x, str) else x

    def launch(x):
        if "zero" in x:
            return Zero(x["zero"])
        scalars = {name: number(value) for name, value in x.get("scalars", {}).items()}
        grid = tuple(number(n) for n in x["grid"])
        return Launch(x["kernel"], grid, number(x["block"]), x["pointers"], scalars, number(x.get("shared_bytes", 0)))

    if "launches" in one:
        launches = [launch(x) for x in one["launches"]]
    else:
        launches = OWN[case.name](s, build) if case.name in OWN else case.launches
    scratch = {name: (dtype, [number(n) for n in sizes]) for name, (dtype, sizes) in one.get("scratch", {}).items()}
    return Variant(one["name"], build, launches, scratch)
