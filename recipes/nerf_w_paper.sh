#!/usr/bin/env bash
# NeRF-W with the networks of nerfw-pytorch and the paper's learning rate and regularizers: 300,000 steps of 2,048 rays.
# Usage: recipes/nerf_w_paper.sh DATA OUT [further options of `lumifield train nerf-w`, which take precedence]
# The paper's networks are wider (512) and use 512 + 512 samples per ray. Published: 8 GPUs for 20 hours.
# The learning rate of backbone mlp is a fortieth of --optimizer.lr: 5e-4.
set -euo pipefail
exec lumifield train nerf-w --backbone mlp --data "$1" --out "$2" --steps 300000 --batch-size 2048 --optimizer.lr 2e-2 \
  --num-samples 64 --num-fine-samples 128 --beta-min 0.03 --transient-loss-weight 0.01 "${@:3}"
