#!/usr/bin/env bash
# Makes a Python environment with PyTorch to compare with, in ${1:-.kindling/peers}. Only for measuring: nothing of
# Kindling needs Python. Prints the path of its interpreter.
set -euo pipefail
folder=${1:-.kindling/peers}
[ -x "$folder/bin/python" ] || python3 -m venv "$folder"
"$folder/bin/pip" install --quiet torch numpy
echo "$folder/bin/python"
