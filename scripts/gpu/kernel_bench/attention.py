"""Causal attention beside each back end of scaled_dot_product_attention."""
from dataclasses import replace

from .measure import Case
from .ops import gradient, rotation
from .sizes import ceil
from .source import Build, Launch, macro_numbers

FILE = "attention/cuda.cu"


def sizes_of(s):
    return {
        "positions": s.positions, "num_heads": s.heads, "num_kv_heads": s.heads, "head_size": s.head_size, "aligned": 1,
    }


# ops/attention/cuda.rs: HOPPER_KERNELS; rows of a block and tiles of 8 KiB: forward, dq, dk and dv.
HOPPER_KERNELS = {64: ((128, 12), (64, 7), (64, 7)), 128: ((192, 26), (192, 22), (128, 18))}


def hopper_launch(s, name, kernel, pointers, extra_bytes=0):
    """ops/attention/cuda.rs: hopper_launch."""
    rows, tiles = kernel
    scalars = {"positions": s.positions, "num_heads": s.heads, "num_kv_heads": s.heads}
    grid = (ceil(s.positions, rows), s.heads, s.batch)
    return Launch(f"attention_{name}_hopper_{s.head_size}", grid, 2 * rows, pointers, scalars, tiles * 8192 + extra_bytes)


def forward_launches(s, build):
    """ops/attention/cuda.rs: forward."""
    if not s.hopper or s.head_size not in HOPPER_KERNELS:
        return mma_launches(s, build)
    return [hopper_launch(s, "forward", HOPPER_KERNELS[s.head_size][0], "out lse qkv")]


def mma_launches(s, build):
    """ops/attention/cuda.rs: forward; block_size."""
    m, streamed, *_ = macro_numbers(build, f"KINDLING_ATTENTION_FORWARD_{s.head_size}")
    rows = 64 * m
    return [
        Launch(
            f"attention_forward_bf16_{s.head_size}", (ceil(s.positions, rows), s.heads, s.batch), 128, "out lse qkv",
            sizes_of(s), 2 * (rows + 4 * streamed) * (s.head_size + 8),
        )
    ]


def deltas(s):
    """ops/attention/cuda.rs: deltas; delta_lanes."""
    lanes = 4 if s.head_size <= 32 else 8 if s.head_size <= 64 else 16
    return Launch(
        "attention_delta_bf16", (ceil(s.rows * s.heads * lanes, 256), 1, 1), 256, "delta dout out",
        {"rows": s.rows, "positions": s.positions, "num_heads": s.heads, "head_size": s.head_size},
    )


def backward_launches(s, build):
    """ops/attention/cuda.rs: backward; hopper_backward."""
    if not s.hopper or s.head_size not in HOPPER_KERNELS:
        return joint_launches(s, build)
    _, q, kv = HOPPER_KERNELS[s.head_size]
    return [
        hopper_launch(s, "backward_q", q, "dqkv delta dout qkv out lse cos sin"),
        hopper_launch(s, "backward_kv", kv, "dqkv delta dout qkv lse cos sin", 2048),
    ]


def joint_launches(s, build):
    """ops/attention/cuda.rs: backward; joint."""
    warps, m, queries, *_ = macro_numbers(build, f"KINDLING_ATTENTION_BACKWARD_{s.head_size}")
    keys = 16 * m * warps
    elements = (2 * keys + 4 * queries) * (s.head_size + 8) + keys * (queries + 8)
    grid = (ceil(s.positions, keys), s.heads, s.batch)
    pointers = "dqkv dq turns dout qkv lse delta cos sin"
    shared = 2 * elements + 16 * queries
    return [
        deltas(s), Launch(f"attention_backward_bf16_{s.head_size}", grid, 32 * warps, pointers, sizes_of(s), shared)
    ]


def two_launches(s, build):
    """ops/attention/cuda.rs: backward_in_two."""
    launches = [deltas(s)]
    for part in ("kv", "q"):
        m, streamed, *_ = macro_numbers(build, f"KINDLING_ATTENTION_{part.upper()}_{s.head_size}")
        rows = 64 * m
        shared = 2 * (2 * rows + 4 * streamed) * (s.head_size + 8) + 4 * 4 * streamed
        grid = (ceil(s.positions, rows), s.heads, s.batch)
        name = f"attention_backward_{part}_bf16_{s.head_size}"
        launches.append(Launch(name, grid, 128, "dqkv dout qkv lse delta cos sin", sizes_of(s), shared))
    return launches


def attention(torch, s, random):
    """Cases of heads of the given size and of 128, whose sizes are those of the cases."""
    heads = s.heads * 5 // 6
    for sizes in (s, replace(s, batch=s.batch // 2, heads=heads, d_model=128 * heads)):
        yield from cases(torch, sizes, random)


def cases(torch, s, random):
    bf16, f32 = torch.bfloat16, torch.float32
    build = Build(FILE, head_size=s.head_size)
    shape = f"{s.batch} x {s.heads} x {s.positions} x {s.head_size}"
    mask = torch.ones(s.positions, s.positions, dtype=torch.bool, device=random.device).tril()

    def heads(x, parts):
        """(rows, parts heads head_size) of one sequence as (parts, heads, positions, head_size)."""
        return x.view(s.positions, parts, s.heads, s.head_size).permute(1, 2, 0, 3)

    def rows(x):
        """The inverse of heads, for any number of parts."""
        return x.movedim(-2, 0).reshape(s.positions, -1)

    def scores(q, k):
        return (q @ k.transpose(1, 2) / s.head_size**0.5).masked_fill(~mask, -torch.inf)

    def sequences(t):
        return (range(i * s.positions, (i + 1) * s.positions) for i in range(s.batch))

    def forward_reference(t, dtype=torch.float64):
        outs, lses = [], []
        for at in sequences(t):
            q, k, v = heads(t["qkv"][at.start : at.stop].to(dtype), 3)
            lse = scores(q, k).logsumexp(2, keepdim=True)
            outs.append(rows((scores(q, k) - lse).exp() @ v))
            lses.append(lse[..., 0])
        return {"out": torch.cat(outs), "lse": torch.stack(lses)}

    def backward_reference(t):
        parts = []
        for at in sequences(t):
            q, k, v = heads(t["qkv"][at.start : at.stop].double(), 3)
            (dout,) = heads(t["dout"][at.start : at.stop].double(), 1)
            p = scores(q, k).softmax(2)
            delta = (dout * (p @ v)).sum(2, keepdim=True)
            ds = p * (dout @ v.transpose(1, 2) - delta) / s.head_size**0.5
            dq, dk = (rotated_back(x, t) for x in (ds @ k, ds.transpose(1, 2) @ q))
            grads = torch.stack((dq, dk, p.transpose(1, 2) @ dout))
            parts.append(rows(grads))
        return {"dqkv": torch.cat(parts)}

    def rotated_back(x, t):
        low, high = x[..., ::2], x[..., 1::2]
        cos, sin = (t[name][:, ::2].double() for name in ("cos", "sin"))
        return torch.stack((low * cos + high * sin, high * cos - low * sin), dim=-1).flatten(-2)

    def make():
        t = {"qkv": random((s.rows, 3 * s.d_model), bf16), "dout": random((s.rows, s.d_model), bf16)}
        found = forward_reference(t, f32)
        t |= {"out": found["out"].to(bf16), "lse": found["lse"].float().contiguous()}
        t |= rotation(torch, s, random)
        # ops/attention/cuda.rs: dq_len, turns_len; tiles of at least 32 queries.
        tiles = s.batch * s.heads * ceil(s.positions, 32)
        t["dq"] = random((tiles * 64 * s.head_size,), f32)
        t["turns"] = torch.zeros(tiles, dtype=torch.int32, device=random.device)
        return t | {"dqkv": torch.empty_like(t["qkv"]), "delta": torch.empty_like(t["lse"])}

    backends = torch.nn.attention.SDPBackend
    kinds = {"flash": backends.FLASH_ATTENTION, "cudnn": backends.CUDNN_ATTENTION, "efficient": backends.EFFICIENT_ATTENTION}
    sdpa, chosen = torch.nn.functional.scaled_dot_product_attention, torch.nn.attention.sdpa_kernel

    def inputs(t):
        return [x.transpose(1, 2) for x in t["qkv"].view(s.batch, s.positions, 3, s.heads, -1).unbind(2)]

    def forward_peer(kind):
        def peer(t):
            q, k, v = inputs(t)

            def call():
                with chosen(kind):
                    return sdpa(q, k, v, is_causal=True)

            return call if kind else lambda: sdpa(q, k, v, is_causal=True)

        return peer

    def backward_peer(kind):
        def peer(t):
            # Leaves with rows of heads next to each other, as a projection leaves them.
            q, k, v = (x.transpose(1, 2).contiguous().transpose(1, 2).requires_grad_() for x in inputs(t))
            if kind:
                with chosen(kind):
                    out = sdpa(q, k, v, is_causal=True)
            else:
                out = sdpa(q, k, v, is_causal=True)
            dout = t["dout"].view(s.batch, s.positions, s.heads, -1).transpose(1, 2)
            return gradient(torch, out, (q, k, v), dout)

        return peer

    default = f"default ({default_backend(torch, s)})" if random.device == "cuda" else "default"
    peers = {default: None, **kinds}
    # Useful work: two products forward, five backward, half of each by the mask.
    product = 2 * s.batch * s.heads * s.positions**2 * s.head_size / 2
    if forward_launches(s, build) != mma_launches(s, build):
        yield Case(
            "attention forward by mma", shape, build, mma_launches(s, build), make, forward_reference,
            {"out": 6e-3, "lse": 1e-4}, flops=2 * product,
        )
    yield Case(
        "attention forward", shape, build, forward_launches(s, build), make, forward_reference,
        {"out": 6e-3, "lse": 1e-4}, flops=2 * product,
        peers={name: forward_peer(kind) for name, kind in peers.items()},
    )

    # The kernels also rotate dq and dk back, which PyTorch's do not.
    def backward_case(name, launches, peers=()):
        reference, exact, turns, scratch = backward_reference, {"dqkv": 1.2e-2}, (), ("delta",)
        if "turns" in launches[-1].pointers.split():
            reference = lambda t: backward_reference(t) | {"turns": torch.zeros_like(t["turns"])}
            exact, turns, scratch = exact | {"turns": 0.0}, ("turns",), ("delta", "dq")
        return Case(
            name, shape, build, launches, make, reference, exact, turns, scratch, parts={"dqkv": ("dq", "dk", "dv")},
            flops=5 * product, peers={kind: backward_peer(peers[kind]) for kind in peers},
        )

    yield backward_case("attention backward", backward_launches(s, build), peers)
    if backward_launches(s, build) != joint_launches(s, build):
        yield backward_case("attention backward by mma", joint_launches(s, build))
    yield backward_case("attention backward in two", two_launches(s, build))


def default_backend(torch, s):
    """The back end that is chosen by default."""
    try:
        shape = (s.batch, s.positions, s.heads, s.head_size)
        x = torch.zeros(shape, dtype=torch.bfloat16, device="cuda").transpose(1, 2).requires_grad_()
        number = torch._fused_sdp_choice(x, x, x, is_causal=True)
        return torch.nn.attention.SDPBackend(number).name.lower().replace("_attention", "")
    except Exception as error:
        return f"unknown: {type(error).__name__}"
