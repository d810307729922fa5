"""Fine-tunes a model in PyTorch on given batches, for scripts/campaigns/exchange/finetune.js.

Reads {"model": file.gguf, "batches": [[[ids]...]...], "lr", "dtype", "threads", "compile"} from standard input and
prints {"losses", "seconds": [per step], "peak_rss_mib"}.
"""

import json
import resource
import sys
import time
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM

asked = json.load(sys.stdin)
torch.set_num_threads(asked["threads"])
path = Path(asked["model"])
model = AutoModelForCausalLM.from_pretrained(
    path.parent, gguf_file=path.name, dtype=torch.float32, attn_implementation="sdpa"
)
model.train()
# As here: weight decay on every parameter, and the input embedding is the output layer.
optimizer = torch.optim.AdamW(model.parameters(), lr=asked["lr"], betas=(0.9, 0.95), eps=1e-8, weight_decay=0.01)
forward = torch.compile(model) if asked["compile"] else model
losses, seconds = [], []
for batch in asked["batches"]:
    started = time.perf_counter()
    ids = torch.tensor(batch)
    with torch.autocast("cpu", torch.bfloat16, enabled=asked["dtype"] == "bf16"):
        logits = forward(ids[:, :-1]).logits
    loss = torch.nn.functional.cross_entropy(logits.float().flatten(0, 1), ids[:, 1:].flatten())
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad()
    losses.append(loss.item())
    seconds.append(time.perf_counter() - started)
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(json.dumps({"losses": losses, "seconds": seconds, "peak_rss_mib": peak}))
