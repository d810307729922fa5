#!/usr/bin/env bash
# Creates a Python environment with PyTorch in ${1:-.kindling/peers} and prints the path of its
# interpreter. Only benchmarks need it; Kindling itself needs no Python.
set -euo pipefail
folder=${1:-.kindling/peers}
[ -x "$folder/bin/python" ] || python3 -m venv "$folder"
"$folder/bin/pip" install --quiet torch numpy
echo "$folder/bin/python"
