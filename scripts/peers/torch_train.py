#!/usr/bin/env python3
"""Times training steps of the same model in PyTorch, to compare with `kindling bench train`.

A step does the same work: a batch of windows at random positions of a memory-mapped int32 file,
forward and backward pass, clipping by the global norm, AdamW. One product computes q, k and v, one
computes w1 and w3, and attention is PyTorch's fused kernel.

    torch_train.py --preset char [--compile] [--dtype bf16] [--threads 2] [--steps 100] [--warmup 3]
    torch_train.py --preset seed --batch 48 --device cuda --dtype bf16 --compile --compile-mode reduce-overhead

With `--turns 5`, it prints `ready` and waits for a line on its input before every fifth timed step:
`side_by_side.py` runs several trainings in turn so.

On a GPU, no step waits for its loss, and the timed steps are measured together. `reduce-overhead`
uses CUDA graphs. `sdpa` names the back end of attention, found by profiling one more step.

The last line is JSON with the fields of `kindling bench train --json` that apply.
"""
import argparse
import json
import math
import resource
import statistics
import tempfile
import time
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F


@dataclass(frozen=True)
class Preset:
    d_model: int
    num_heads: int
    d_ff: int
    num_layers: int
    vocab_size: int
    seq_length: int
    batch_size: int


# The presets of src/training/presets.ts.
PRESETS = {
    "char": Preset(128, 4, 344, 4, 65, 64, 12),
    "char-gpu": Preset(384, 6, 1024, 6, 65, 256, 64),
    "tinystories": Preset(512, 16, 1344, 4, 10000, 256, 32),
    "seed": Preset(512, 8, 1344, 6, 32000, 256, 32),
    "gpt2-small-bench": Preset(768, 12, 2048, 12, 50304, 1024, 4),
    "gpt2-large-bench": Preset(1280, 10, 3456, 36, 50304, 1024, 1),
}


def rotate(x, cos, sin):
    """Rotates the pairs (0, 1), (2, 3), ... of the last axis by the angles of each position."""
    even, odd = x[..., ::2], x[..., 1::2]
    rotated = torch.stack((even * cos - odd * sin, even * sin + odd * cos), dim=-1)
    return rotated.flatten(-2).type_as(x)


class Attention(nn.Module):
    def __init__(self, p):
        super().__init__()
        self.num_heads = p.num_heads
        self.qkv = nn.Linear(p.d_model, 3 * p.d_model, bias=False)
        self.out = nn.Linear(p.d_model, p.d_model, bias=False)

    def forward(self, x, cos, sin):
        batch, positions, width = x.shape
        heads = self.qkv(x).view(batch, positions, 3 * self.num_heads, -1).transpose(1, 2)
        q, k, v = heads.chunk(3, dim=1)
        y = F.scaled_dot_product_attention(rotate(q, cos, sin), rotate(k, cos, sin), v, is_causal=True)
        return self.out(y.transpose(1, 2).reshape(batch, positions, width))


class FeedForward(nn.Module):
    def __init__(self, p):
        super().__init__()
        self.gate_up = nn.Linear(p.d_model, 2 * p.d_ff, bias=False)
        self.down = nn.Linear(p.d_ff, p.d_model, bias=False)

    def forward(self, x):
        gate, up = self.gate_up(x).chunk(2, dim=-1)
        return self.down(F.silu(gate) * up)


class Block(nn.Module):
    def __init__(self, p):
        super().__init__()
        self.attention_norm = nn.RMSNorm(p.d_model, eps=1e-5)
        self.attention = Attention(p)
        self.feed_forward_norm = nn.RMSNorm(p.d_model, eps=1e-5)
        self.feed_forward = FeedForward(p)

    def forward(self, x, cos, sin):
        x = x + self.attention(self.attention_norm(x), cos, sin)
        return x + self.feed_forward(self.feed_forward_norm(x))


class Transformer(nn.Module):
    def __init__(self, p, theta=1e5):
        super().__init__()
        self.embedding = nn.Embedding(p.vocab_size, p.d_model)
        self.blocks = nn.ModuleList(Block(p) for _ in range(p.num_layers))
        self.final_norm = nn.RMSNorm(p.d_model, eps=1e-5)
        self.final_layer = nn.Linear(p.d_model, p.vocab_size, bias=False)
        head_size = p.d_model // p.num_heads
        frequencies = theta ** (-torch.arange(0, head_size, 2) / head_size)
        angles = torch.outer(torch.arange(p.seq_length), frequencies)
        self.register_buffer("cos", angles.cos(), persistent=False)
        self.register_buffer("sin", angles.sin(), persistent=False)
        for weight in self.parameters():
            if weight.dim() == 2:
                # The fused matrices should be scaled as their parts, but speed does not depend on it.
                std = math.sqrt(2 / sum(weight.shape))
                nn.init.trunc_normal_(weight, std=std, a=-3 * std, b=3 * std)

    def forward(self, x, targets):
        h = self.embedding(x)
        for block in self.blocks:
            h = block(h, self.cos, self.sin)
        logits = self.final_layer(self.final_norm(h))
        return F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten())


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", choices=PRESETS, default="char")
    parser.add_argument("--dtype", choices=["f32", "bf16"], default="f32")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--warmup", type=int, default=3)
    parser.add_argument("--batch", type=int, help="sequences per step (default: the preset's)")
    parser.add_argument("--turns", type=int, help="timed steps between two waits for a line on the input")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--compile-mode", default="default", choices=["default", "reduce-overhead", "max-autotune"])
    return parser.parse_args()


def random_tokens(preset, rng):
    """Returns two million random token ids as a memory-mapped file."""
    with tempfile.NamedTemporaryFile() as file:
        rng.integers(0, preset.vocab_size, 2_000_000, dtype=np.int32).tofile(file.name)
        return np.memmap(file.name, np.int32, "r")


def batch(tokens, preset, rng, device):
    starts = rng.integers(0, len(tokens) - preset.seq_length, preset.batch_size)
    rows = np.stack([tokens[start : start + preset.seq_length + 1] for start in starts]).astype(np.int64)
    rows = torch.from_numpy(rows)
    if torch.device(device).type == "cuda":
        rows = rows.pin_memory().to(device, non_blocking=True)
    return rows[:, :-1], rows[:, 1:]


# Parts of the names of kernels, of the back ends of scaled_dot_product_attention.
BACKENDS = {"cudnn": "cudnn", "flash_fwd": "flash", "flash_bwd": "flash", "fmha": "efficient"}


def attention_backend(step):
    """Returns the back end of attention whose kernels ran in a step on a GPU, `math` if none of them did."""
    try:
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as recorded:
            step()
            torch.cuda.synchronize()
        names = " ".join(event.key for event in recorded.key_averages()).lower()
    except RuntimeError as error:
        return f"unknown: {error}"
    return next((backend for part, backend in BACKENDS.items() if part in names), "math")


def main():
    args = arguments()
    preset = PRESETS[args.preset]
    if args.batch:
        preset = replace(preset, batch_size=args.batch)
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    model = Transformer(preset).to(args.device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.95), weight_decay=0.01, fused=True)
    forward = torch.compile(model, mode=args.compile_mode) if args.compile else model
    tokens = random_tokens(preset, rng)
    kind = torch.device(args.device).type
    on_gpu = kind == "cuda"

    def step():
        x, targets = batch(tokens, preset, rng, args.device)
        with torch.autocast(kind, torch.bfloat16, enabled=args.dtype == "bf16"):
            loss = forward(x, targets)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss.detach().clone() if on_gpu else loss.item()

    seconds, losses = [], []
    for step_index in range(args.warmup + args.steps):
        if on_gpu and step_index == args.warmup:
            torch.cuda.synchronize()
            timed_from = time.perf_counter()
        if args.turns and step_index >= args.warmup and (step_index - args.warmup) % args.turns == 0:
            print("ready", flush=True)
            input()
        started = time.perf_counter()
        losses.append(step())
        seconds.append(time.perf_counter() - started)
    each = statistics.median(seconds[args.warmup :])
    if on_gpu:
        torch.cuda.synchronize()
        each = (time.perf_counter() - timed_from) / args.steps
    result = {
        "peer": f"torch {torch.__version__}",
        "preset": args.preset,
        "dtype": args.dtype,
        "compiled": args.compile_mode if args.compile else False,
        "device": args.device,
        "threads": args.threads,
        "params": sum(weight.numel() for weight in model.parameters()),
        "tokens_per_second": round(preset.batch_size * preset.seq_length / each, 1),
        "step_ms": round(1000 * each, 2),
        "peak_rss_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "peak_device_mib": torch.cuda.max_memory_allocated() // 2**20 if on_gpu else None,
        "loss_first": float(losses[0]),
        "loss_last": float(losses[-1]),
        # After the memory is read: the profiler's step is not part of the measurement.
        "sdpa": attention_backend(step) if on_gpu else None,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
