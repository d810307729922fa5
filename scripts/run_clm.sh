#!/usr/bin/env bash
# Runs the training script of the course with its options. It expects the store data/2G_chunks and
# the tokenizer data/vocab_32000.txt with data/merges_32000.txt; make them with
# `kindling tokenizer train` and `kindling encode`.
# Further flags may follow: scripts/run_clm.sh --max-steps 10
set -euo pipefail
cd "$(dirname "$0")/.."
exec node dist/cli/index.js train \
  --d_model 512 \
  --num_heads 8 \
  --d_ff 1344 \
  --vocab_size 32000 \
  --num_layers 8 \
  --max_seq_length 256 \
  --seq_length 256 \
  --batch_size 48 \
  --theta 100000 \
  --num_epochs 5.5 \
  --lr 1e-4 \
  --lr_min 1e-5 \
  --warmup_ratio 0.05 \
  --warmfix_ratio 0.9 \
  --chunk_size 500000 \
  --vocab_path data/vocab_32000.txt \
  --merges_path data/merges_32000.txt \
  --special_tokens "<|endoftext|>" \
  --corpus_size "2G" \
  --log_interval 20 \
  --save_interval 500 \
  --weight_decay 0.01 \
  --betas 0.9 0.95 \
  --eps 1e-8 \
  --max_norm 1.0 "$@"
