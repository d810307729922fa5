"""Norm, SwiGLU, rotation, embedding, loss, update and casts: launches, references, peers."""
from .measure import Case
from .sizes import ceil, flat_grid, row_block, step_grid
from .source import Build, Launch

EPS = 1e-5


def compiled(torch, function):
    return torch.compile(function, dynamic=False)


def gradient(torch, out, inputs, dout):
    """A function that computes the gradients of a graph that exists."""
    return lambda: torch.autograd.grad(out, inputs, dout, retain_graph=True)


def leaf(tensor):
    return tensor.detach().clone().requires_grad_()


def rms_norm_launches(s):
    """ops/rms_norm/cuda.rs: launch_forward; backward, with and without the rounded dx and the norm."""
    n = {"rows": s.rows, "width": s.d_model}
    blocks = min(max(ceil(s.rows, 16), 1), 3 * 132)
    groups = next(groups for groups in (1, 2, 4, 8) if ceil(ceil(s.d_model, 4 * groups), 32) <= 8)
    threads = 32 * ceil(ceil(s.d_model, 4 * groups), 32)
    forward = Launch(
        "rms_norm_forward_bf16", (ceil(s.rows, 8), 1, 1), 256, "out sum rstd x residual weight", {**n, "eps": EPS}
    )
    backward = [
        Launch(
            f"rms_norm_backward_bf16_{groups}", (blocks, 1, 1), threads,
            "dx rounded normed partial dout x weight rstd", {**n, "add": 1},
        ),
        Launch(
            "rms_norm_add_partial", (ceil(s.d_model, 32), 1, 1), 256, "dweight partial",
            {"blocks": blocks, "width": s.d_model},
        ),
    ]
    return forward, backward, blocks


def rms_norm(torch, s, random):
    forward, backward, blocks = rms_norm_launches(s)
    build, shape, elements = Build("rms_norm/cuda.cu"), f"{s.rows} x {s.d_model}", s.rows * s.d_model
    bf16, f32 = torch.bfloat16, torch.float32
    stream = lambda dtype=f32: random((s.rows, s.d_model), dtype)
    gain = lambda: 1 + 0.1 * random((s.d_model,), f32)

    def statistics(x):
        return (x.double().square().mean(1) + EPS).rsqrt()

    def norm(x, weight):
        return torch.nn.functional.rms_norm(x, (s.d_model,), weight, EPS).to(bf16)

    def norm_sum(x, residual, weight):
        total = x + residual
        return total, norm(total, weight)

    def forward_reference(t):
        total = t["x"].double() + (0 if t["residual"] is None else t["residual"].double())
        rstd = statistics(total)
        return {"sum": total, "rstd": rstd, "out": total * rstd[:, None] * t["weight"].double()}

    def make_forward(residual):
        t = {"x": stream(), "weight": gain(), "residual": None, "sum": None}
        if residual:
            t |= {"residual": stream(bf16), "sum": torch.empty_like(t["x"])}
        return t | {"out": stream(bf16), "rstd": random((s.rows,), f32)}

    def make_backward(copies):
        t = {"x": stream(), "weight": gain(), "dout": stream(bf16), "dx": stream(), "dweight": gain()}
        t |= {name: stream(bf16) if copies else None for name in ("rounded", "normed")}
        return t | {"rstd": statistics(t["x"]).float(), "partial": random((blocks, s.d_model), f32)}

    def backward_reference(t):
        x, w, dout, rstd = (t[name].double() for name in ("x", "weight", "dout", "rstd"))
        xhat, weighted = x * rstd[:, None], w * dout
        dx = rstd[:, None] * (weighted - xhat * (weighted * xhat).mean(1, keepdim=True))
        total = t["dx"].double() + dx
        return {"dx": total, "rounded": total, "normed": xhat * w, "dweight": t["dweight"].double() + (dout * xhat).sum(0)}

    fast_norm, fast_sum = compiled(torch, norm), compiled(torch, norm_sum)

    def graph(function):
        def peer(t):
            x, w = leaf(t["x"]), leaf(t["weight"])
            return gradient(torch, function(x, w), (x, w), t["dout"])

        return peer

    yield Case(
        "rms_norm forward", shape, build, [forward], lambda: make_forward(False), forward_reference,
        {"out": 4e-3, "rstd": 1e-5}, bytes=elements * 6,
        peers={
            "eager": lambda t: lambda: norm(t["x"], t["weight"]),
            "compiled": lambda t: lambda: fast_norm(t["x"], t["weight"]),
        },
    )
    yield Case(
        "rms_norm forward, residual", shape, build, [forward], lambda: make_forward(True), forward_reference,
        {"out": 4e-3, "rstd": 1e-5, "sum": 1e-6}, bytes=elements * 12,
        peers={"compiled": lambda t: lambda: fast_sum(t["x"], t["residual"], t["weight"])},
    )
    yield Case(
        "rms_norm backward, adding", shape, build, backward, lambda: make_backward(False), backward_reference,
        {"dx": 1e-5, "dweight": 1e-5}, ("dx", "dweight"), ("partial",), bytes=elements * 14,
        peers={"eager": graph(norm), "compiled": graph(fast_norm)},
    )
    yield Case(
        "rms_norm backward, adding, rounded and normed", shape, build, backward, lambda: make_backward(True),
        backward_reference, {"dx": 1e-5, "dweight": 1e-5, "rounded": 4e-3, "normed": 4e-3}, ("dx", "dweight"),
        ("partial",), bytes=elements * 18,
    )


def swiglu(torch, s, random):
    """ops/swiglu/cuda.rs: forward; backward_in_place."""
    build, shape, elements = Build("swiglu/cuda.cu"), f"{s.rows} x {s.d_ff}", s.rows * s.d_ff
    bf16 = torch.bfloat16
    row = ((s.rows, 1, 1), row_block(s.d_ff, 8))
    forward = Launch("swiglu_forward_bf16", *row, "out gate_up", {"width": s.d_ff})
    backward = Launch("swiglu_backward_bf16", *row, "dgate_up out dout gate_up", {"width": s.d_ff})

    def gate(gate_up):
        left, right = gate_up.chunk(2, dim=-1)
        return torch.nn.functional.silu(left) * right

    def make():
        t = {"gate_up": random((s.rows, 2 * s.d_ff), bf16), "out": random((s.rows, s.d_ff), bf16)}
        return t | {"dgate_up": t["gate_up"], "dout": t["out"]}

    def backward_reference(t):
        left, right = t["gate_up"].double().chunk(2, dim=-1)
        dout, sigma = t["out"].double(), left.sigmoid()
        dleft = dout * right * sigma * (1 + left * (1 - sigma))
        return {"gate_up": torch.cat((dleft, dout * left * sigma), 1), "out": left * sigma * right}

    fast = compiled(torch, gate)

    def graph(function):
        def peer(t):
            x = leaf(t["gate_up"])
            return gradient(torch, function(x), (x,), random((s.rows, s.d_ff), bf16))

        return peer

    yield Case(
        "swiglu forward", shape, build, [forward], make, lambda t: {"out": gate(t["gate_up"].double())},
        {"out": 4e-3}, bytes=elements * 6,
        peers={
            "eager": lambda t: lambda: gate(t["gate_up"]),
            "compiled": lambda t: lambda: fast(t["gate_up"]),
        },
    )
    yield Case(
        "swiglu backward, output again", shape, build, [backward], make, backward_reference,
        {"gate_up": 4e-3, "out": 4e-3}, ("gate_up", "out"), bytes=elements * 12,
        peers={"eager": graph(gate), "compiled": graph(fast)},
    )


def rotation(torch, s, random):
    """ops/rope/mod.rs: tables."""
    frequencies = torch.pow(1e5, -torch.arange(0, s.head_size, 2) / s.head_size).repeat_interleave(2)
    angles = torch.outer(torch.arange(s.positions).float(), frequencies).to(random.device)
    return {"cos": angles.cos(), "sin": angles.sin()}


def rope(torch, s, random):
    """ops/rope/cuda.rs: rotate, over q and k of a row q | k | v."""
    width, rotated, bf16 = 3 * s.d_model, 2 * s.d_model, torch.bfloat16
    launch = Launch(
        "rope_rotate_bf16", (s.rows, 1, 1), row_block(rotated, 8), "x cos sin",
        {
            "row_width": width, "rotated": rotated, "head_size": s.head_size, "positions": s.positions,
            "first_position": 0, "direction": 1.0,
        },
    )

    def make():
        return {"x": random((s.rows, width), bf16)} | rotation(torch, s, random)

    def rotate(x, cos, sin):
        """x: (batch, positions, heads, head_size)."""
        even, odd = x[..., ::2], x[..., 1::2]
        return torch.stack((even * cos - odd * sin, even * sin + odd * cos), dim=-1).flatten(-2).type_as(x)

    def views(t, dtype):
        qk = t["x"].view(s.batch, s.positions, 3 * s.heads, -1)[:, :, : 2 * s.heads]
        return qk.to(dtype), *(t[name][:, None, ::2].to(dtype) for name in ("cos", "sin"))

    def reference(t):
        rest = t["x"].view(s.batch, s.positions, 3 * s.heads, -1)[:, :, 2 * s.heads :].double()
        whole = torch.cat((rotate(*views(t, torch.float64)), rest), 2)
        return {"x": whole.reshape(s.rows, width)}

    fast = compiled(torch, rotate)

    def peer(t):
        x, cos, sin = views(t, bf16)
        cos, sin = cos.float(), sin.float()
        return lambda: fast(x, cos, sin)

    yield Case(
        "rope forward", f"{s.rows} x {rotated}", Build("rope/cuda.cu"), [launch], make, reference, {"x": 4e-3},
        ("x",), peers={"compiled": peer}, bytes=s.rows * rotated * 4,
    )


def groups_of(torch, ids):
    """ops/embedding/cuda.rs: Groups::of."""
    rows = len(ids)
    order = torch.argsort(ids, stable=True)
    group_ids, counts = torch.unique_consecutive(ids[order], return_counts=True)
    starts = torch.zeros(rows + 1, dtype=torch.int32, device=ids.device)
    starts[1 : len(counts) + 1] = counts.cumsum(0)
    padded = torch.zeros(rows, dtype=torch.int32, device=ids.device)
    padded[: len(group_ids)] = group_ids
    groups = torch.tensor([len(group_ids)], dtype=torch.int32, device=ids.device)
    return {"order": order.int(), "starts": starts, "group_ids": padded, "groups": groups}


def embedding(torch, s, random):
    """ops/embedding/cuda.rs: forward; backward. Ids are skewed as in text."""
    build, f32 = Build("embedding/cuda.cu"), torch.float32
    forward = Launch(
        "embedding_forward", (ceil(s.rows, 8), 1, 1), 256, "out ids weight", {"rows": s.rows, "d_model": s.d_model}
    )
    backward = Launch(
        "embedding_backward", (ceil(min(s.rows, s.vocab), 8), ceil(s.d_model, 128), 1), 256,
        "dweight dout order starts group_ids groups", {"d_model": s.d_model},
    )

    def make():
        ids = (s.vocab * random.uniform((s.rows,)) ** 4).long().clamp(max=s.vocab - 1)
        t = {name: random((s.rows, s.d_model), f32) for name in ("out", "dout")}
        t |= {name: random((s.vocab, s.d_model), f32) for name in ("weight", "dweight")}
        return t | groups_of(torch, ids) | {"ids": ids.int(), "long_ids": ids}

    def backward_reference(t):
        return {"dweight": t["dweight"].double().index_add(0, t["long_ids"], t["dout"].double())}

    lookup, dense = torch.nn.functional.embedding, torch.ops.aten.embedding_dense_backward
    shape = f"{s.rows} x {s.d_model}"
    yield Case(
        "embedding forward", shape, build, [forward], make, lambda t: {"out": t["weight"][t["long_ids"]]},
        {"out": 0.0}, bytes=s.rows * s.d_model * 8,
        peers={"eager": lambda t: lambda: lookup(t["long_ids"], t["weight"])},
    )
    yield Case(
        "embedding backward", shape, build, [backward], make, backward_reference, {"dweight": 1e-6}, ("dweight",),
        bytes=s.rows * s.d_model * 4,
        peers={"eager": lambda t: lambda: dense(t["dout"], t["long_ids"], s.vocab, -1, False)},
    )


def cross_entropy(torch, s, random):
    """ops/cross_entropy/cuda.rs: forward_backward; keeping; add_losses."""
    rows, vocab, bf16 = s.block_rows, s.vocab, torch.bfloat16
    scale = 1 / s.rows

    def launch(kernel, block):
        name = f"cross_entropy_forward_backward_{kernel}"
        scalars = {"vocab_size": vocab, "pitch": vocab, "scale": scale}
        return Launch(name, (rows, 1, 1), block, "logits losses targets", scalars)

    vectors = ceil(vocab, 8)
    kept = next(kept for kept in (2, 4, 7) if vectors <= 1024 * kept)
    keeping = launch(f"kept_bf16_{kept}", max(ceil(ceil(vectors, kept), 32) * 32, 32))
    twice = launch("bf16", min(max(ceil(vectors, 32) * 32, 32), 512))
    add = Launch("cross_entropy_add_losses", (1, 1, 1), 1024, "total losses", {"rows": rows})
    loss = torch.nn.functional.cross_entropy

    def make():
        targets = (vocab * random.uniform((rows,))).long()
        targets[::11] = -100
        return {
            "logits": 3 * random((rows, vocab), bf16), "losses": random((rows,), torch.float32),
            "targets": targets.int(), "long_targets": targets,
            "total": torch.ones(1, dtype=torch.float64, device=random.device),
        }

    def reference(t):
        logits = t["logits"].double().requires_grad_()
        losses = loss(logits, t["long_targets"], reduction="none")
        (dlogits,) = torch.autograd.grad(losses.sum() * scale, logits)
        losses = losses.detach()
        return {"logits": dlogits, "losses": losses, "total": t["total"] + losses.sum()}

    def mean(logits, targets):
        return loss(logits.float(), targets, reduction="sum") * scale

    fast = compiled(torch, mean)

    def both(function):
        def peer(t):
            logits = leaf(t["logits"])
            return lambda: torch.autograd.grad(function(logits, t["long_targets"]), logits)

        return peer

    yield Case(
        "cross_entropy both passes", f"{rows} x {vocab}", Build("cross_entropy/cuda.cu"), [keeping, add], make, reference,
        {"logits": 6e-3, "losses": 1e-5, "total": 1e-6}, ("logits", "total"), bytes=rows * vocab * 4,
        peers={"eager": both(mean), "compiled": both(fast)},
    )
    yield Case(
        "cross_entropy reading twice", f"{rows} x {vocab}", Build("cross_entropy/cuda.cu"), [twice], make, reference,
        {"logits": 6e-3, "losses": 1e-5}, ("logits",), bytes=rows * vocab * 4,
    )


def adamw(torch, s, random):
    """ops/adamw/cuda.rs: step; settings. All parameters in one run."""
    n, f32 = s.params // 4 * 4, torch.float32
    lr, beta1, beta2, eps, decay, step = 1e-3, 0.9, 0.95, 1e-8, 0.1, 10
    alpha = lr * (1 - beta2**step) ** 0.5 / (1 - beta1**step)
    settings = [alpha, beta1, 1 - beta1, beta2, 1 - beta2, eps, 1 - lr * decay]
    launch = Launch("adamw_step", step_grid(n), 256, "p copy g m v settings clip", {"n": n, "clear": 1})

    def make():
        t = {name: random((n,), f32) for name in ("p", "g", "m")}
        t |= {"v": random((n,), f32).square_(), "copy": random((n,), torch.bfloat16)}
        kind = {"device": random.device}
        clip = torch.tensor([4.0, 2.0, 0.5], dtype=torch.float64, **kind)
        return t | {"settings": torch.tensor(settings, dtype=f32, **kind), "clip": clip}

    def reference(t):
        g = t["g"].double() * 0.5
        m = t["m"].double() * beta1 + g * (1 - beta1)
        v = t["v"].double() * beta2 + g * g * (1 - beta2)
        p = t["p"].double() * (1 - lr * decay) - alpha * m / (v.sqrt() + eps)
        return {"p": p, "copy": p, "m": m, "v": v, "g": torch.zeros_like(t["g"])}

    def peer(t):
        p = leaf(t["p"])
        p.grad = t["g"].clone()
        optimizer = torch.optim.AdamW([p], lr=lr, betas=(beta1, beta2), eps=eps, weight_decay=decay, fused=True)
        return optimizer.step

    yield Case(
        "adamw, bf16 copy, clearing", f"{n}", Build("adamw/cuda.cu"), [launch], make, reference,
        {"p": 1e-6, "copy": 4e-3, "m": 1e-6, "v": 1e-6, "g": 0.0}, ("p", "m", "v", "g"),
        peers={"fused (28 of 34 bytes)": peer}, bytes=n * 34,
    )


def grad_norm(torch, s, random):
    """ops/grad_norm/cuda.rs: squares; clip_factor."""
    n, f64 = s.params // 8 * 8, torch.float64
    blocks = min(max(ceil(n, 256 * 16), 1), 8 * 132)
    launches = [
        Launch("grad_norm_squares", (blocks, 1, 1), 256, "partial g", {"n": n}),
        Launch("grad_norm_clip_factor", (1, 1, 1), 256, "state partial", {"blocks": blocks, "max_norm": 1.0}),
    ]

    def make():
        g = random((n,), torch.float32)
        return {"g": g, "partial": random((blocks,), f64), "state": random((3,), f64)}

    def reference(t):
        total = t["g"].double().square().sum()
        norm = total.sqrt()
        return {"state": torch.stack((total, norm, 1 / (norm + 1e-6)))}

    yield Case(
        "grad_norm", f"{n}", Build("grad_norm/cuda.cu"), launches, make, reference, {"state": 1e-6}, (), ("partial",),
        peers={"vector_norm": lambda t: lambda: torch.linalg.vector_norm(t["g"])}, bytes=n * 4,
    )


def casts(torch, s, random):
    """ops/kernels/mod.rs: cast."""
    n, build = s.rows * s.d_model, Build("kernels/cast.cu")
    for kernel, to, source in [
        ("cast_f32_to_bf16", torch.bfloat16, torch.float32), ("cast_bf16_to_f32", torch.float32, torch.bfloat16),
    ]:
        launch = Launch(kernel, flat_grid(n), 256, "out x", {"n": n})
        yield Case(
            kernel, f"{n}", build, [launch],
            lambda to=to, source=source: {"x": random((n,), source), "out": random((n,), to)},
            lambda t, to=to: {"out": t["x"].to(to)}, {"out": 0.0}, bytes=n * 6,
            peers={"copy_": lambda t: lambda: t["out"].copy_(t["x"])},
        )
