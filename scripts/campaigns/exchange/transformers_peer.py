"""Answers questions about models with Hugging Face's transformers, for scripts/campaigns/exchange/index.js.

Reads a JSON list of questions from standard input and prints the list of answers:
{"model": folder or file.gguf, "ids": [...], "logits": file}   writes the logits as little-endian f32
{"model": ..., "prompts": [[ids]...], "tokens": n}             greedy continuations, and at each token the lead of the
                                                               best logit over the second
{"model": ..., "texts": [...]}                                 ids of the tokenizer
"""

import json
import sys
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer


def location(path):
    path = Path(path)
    return (path.parent, {"gguf_file": path.name}) if path.suffix == ".gguf" else (path, {})


def answer(question, models={}):
    folder, options = location(question["model"])
    if "texts" in question:
        tokenizer = AutoTokenizer.from_pretrained(folder, **options)
        return [tokenizer(text, add_special_tokens=False)["input_ids"] for text in question["texts"]]
    if question["model"] not in models:
        models.clear()
        models[question["model"]] = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, **options).eval()
    model = models[question["model"]]
    if "logits" in question:
        logits = model(torch.tensor([question["ids"]])).logits[0]
        Path(question["logits"]).write_bytes(logits.contiguous().numpy().tobytes())
        return list(logits.shape)
    answers = []
    for prompt in question["prompts"]:
        ids = torch.tensor([prompt])
        out = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=question["tokens"],
            do_sample=False,
            output_logits=True,
            return_dict_in_generate=True,
        )
        best = [step[0].topk(2).values for step in out.logits]
        answers.append(
            {"ids": out.sequences[0, len(prompt) :].tolist(), "leads": [float(two[0] - two[1]) for two in best]}
        )
    return answers


with torch.no_grad():
    print(json.dumps([answer(question) for question in json.load(sys.stdin)]))
