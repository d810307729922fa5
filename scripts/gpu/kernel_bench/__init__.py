"""Parts of scripts/gpu/kernels.py."""
