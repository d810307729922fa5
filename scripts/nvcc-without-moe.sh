#!/bin/sh
# Wraps nvcc to halve the build time of candle-kernels. Files that it compiles to objects (kernels for
# quantized and mixture-of-experts models, unused here) become empty objects; everything else,
# such as kernels compiled to PTX, goes to nvcc.
object=
previous=
compiles=
for argument in "$@"; do
  [ "$argument" = -c ] && compiles=1
  [ "$previous" = -o ] && object=$argument
  previous=$argument
done
if [ -n "$compiles" ]; then
  echo | cc -c -fPIC -x c - -o "$object"
  exit
fi
exec "$CUDA_HOME/bin/nvcc" "$@"
