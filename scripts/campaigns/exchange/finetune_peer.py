"""Fine-tunes a model in PyTorch, one batch at a time, for scripts/campaigns/exchange/finetune.js.

The first line of standard input is {"model": file.gguf, "lr", "dtype", "threads", "compile"}; every further one is a
batch, [[ids]...], answered by {"loss", "seconds", "peak_rss_mib"}.
"""

import json
import resource
import sys
import time
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM

asked = json.loads(sys.stdin.readline())
torch.set_num_threads(asked["threads"])
path = Path(asked["model"])
model = AutoModelForCausalLM.from_pretrained(
    path.parent, gguf_file=path.name, dtype=torch.float32, attn_implementation="sdpa"
)
model.train()
# As here: weight decay on every parameter, and the input embedding is the output layer.
optimizer = torch.optim.AdamW(model.parameters(), lr=asked["lr"], betas=(0.9, 0.95), eps=1e-8, weight_decay=0.01)
forward = torch.compile(model) if asked["compile"] else model
for line in sys.stdin:
    batch = json.loads(line)
    started = time.perf_counter()
    ids = torch.tensor(batch)
    with torch.autocast("cpu", torch.bfloat16, enabled=asked["dtype"] == "bf16"):
        logits = forward(ids[:, :-1]).logits
    loss = torch.nn.functional.cross_entropy(logits.float().flatten(0, 1), ids[:, 1:].flatten())
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad()
    seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"loss": loss.item(), "seconds": seconds, "peak_rss_mib": peak}), flush=True)
