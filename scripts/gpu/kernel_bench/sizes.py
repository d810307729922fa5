"""Sizes of the benchmark, and the grids shared by the ops (crates/kindling-core/src/ops/kernels/mod.rs)."""
from dataclasses import dataclass


def ceil(a, b):
    return -(-a // b)


@dataclass(frozen=True)
class Sizes:
    """gpt2-small-bench at batch 32."""

    batch: int = 32
    positions: int = 1024
    d_model: int = 768
    heads: int = 12
    d_ff: int = 2048
    vocab: int = 50304
    layers: int = 12
    head_rows: int = 0
    # Whether the device has the matrix instructions of ops/kernels/warpgroup.cuh.
    hopper: bool = False

    @property
    def rows(self):
        return self.batch * self.positions

    @property
    def head_size(self):
        return self.d_model // self.heads

    @property
    def params(self):
        layer = 4 * self.d_model**2 + 3 * self.d_model * self.d_ff + 2 * self.d_model
        return 2 * self.vocab * self.d_model + self.layers * layer + self.d_model

    @property
    def block_rows(self):
        """Rows of a block of logits: ops/output_loss/cuda.rs, block_rows."""
        if self.head_rows:
            return self.head_rows
        most = min(max(1_200_000_000 // (128 * 2 * ceil(self.vocab, 64) * 64), 1), 256)
        return min(128 * min(range(1, most + 1), key=lambda tiles: self.block_time(tiles) / tiles), self.rows)

    def block_time(self, tiles, multiprocessors=132):
        waves = lambda columns: ceil(tiles * ceil(columns, 256), multiprocessors)
        dweight = 8 * self.vocab * self.d_model // (32 << 10)
        return waves(self.vocab) * self.d_model + waves(self.d_model) * self.vocab + dweight


# For the emulated device.
TINY = Sizes(2, 72, 128, 2, 64, 104, 1, hopper=True)


def flat_grid(n):
    return (min(max(ceil(n, 256 * 8), 1), 64 * 132), 1, 1)


def row_block(width, each):
    return min(max(ceil(ceil(width, each), 32) * 32, 32), 256)


def step_grid(n):
    return (min(max(ceil(n, 256 * 4), 1), 1 << 20), 1, 1)
