"""The machine's ceilings, and the model's products by torch.matmul. They need none of our kernels."""


def ceilings(bench, s, random):
    torch = bench.torch
    a, b = (torch.empty(2**30, dtype=torch.float32, device=random.device) for _ in range(2))
    us = bench.time([lambda: b.copy_(a)])
    yield {"op": "copy", "shape": "4 GiB", "torch_us": {"copy_": us}, "gb_per_s": 2 * a.nbytes / us / 1e3}
    del a, b
    n = 8192
    x, y = (random((n, n), torch.bfloat16) for _ in range(2))
    out = torch.empty_like(x)
    us = bench.time([lambda: torch.mm(x, y, out=out)])
    yield {"op": "product", "shape": f"{n}^3 bf16", "torch_us": {"matmul": us}, "tflop_per_s": 2 * n**3 / us / 1e6}


def layers(s):
    """(name, rows, inputs, outputs) of the model's linear layers."""
    return [
        ("qkv", s.rows, s.d_model, 3 * s.d_model),
        ("o", s.rows, s.d_model, s.d_model),
        ("w13", s.rows, s.d_model, 2 * s.d_ff),
        ("w2", s.rows, s.d_ff, s.d_model),
        ("head", s.block_rows, s.d_model, s.vocab),
    ]


def products(bench, s, random):
    """y = x W^T, dx = dy W, dW = dy^T x, as in ops/linear/cuda.rs; dW also with sums kept in f32."""
    torch, bf16 = bench.torch, bench.torch.bfloat16
    for name, rows, inputs, outputs in layers(s):
        sets = 1 if rows * (inputs + outputs) * 2 > 400e6 else 2
        x, dy = ([random((rows, width), bf16) for _ in range(sets)] for width in (inputs, outputs))
        w, dw = random((outputs, inputs), bf16), torch.empty((outputs, inputs), dtype=bf16, device=random.device)
        y, dx = torch.empty_like(dy[0]), torch.empty_like(x[0])
        calls = {
            "forward": [lambda x=x: torch.mm(x, w.T, out=y) for x in x],
            "dx": [lambda dy=dy: torch.mm(dy, w, out=dx) for dy in dy],
            "dW": [lambda x=x, dy=dy: torch.mm(dy.T, x, out=dw) for x, dy in zip(x, dy)],
            "dW in f32": [lambda x=x, dy=dy: torch.mm(dy.T, x, out_dtype=torch.float32) for x, dy in zip(x, dy)],
        }
        for part, call in calls.items():
            row = {"op": f"product {name} {part}", "shape": f"{rows} x {inputs} -> {outputs}"}
            try:
                us = bench.time(call)
                yield {**row, "torch_us": {"matmul": us}, "tflop_per_s": 2 * rows * inputs * outputs / us / 1e6}
            except Exception as error:
                yield {**row, "failed": f"{type(error).__name__}: {str(error)[:100]}"}
