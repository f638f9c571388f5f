#!/usr/bin/env bash
# NeRF on a Blender scene at 800x800 with the settings of the paper: 64 + 128 samples, 4,096 rays, learning rate 5e-4 to 5e-5.
# Usage: recipes/nerf_blender_paper.sh DATA OUT [further options of `lumifield train nerf`, which take precedence]
# Published: 31.01 dB, SSIM 0.947 over eight scenes; lego 32.54 dB (Mildenhall et al. 2020, table 1 and appendix),
# 1 to 2 days on one V100. The paper states 100,000 to 300,000 steps; this recipe uses 200,000.
set -euo pipefail
exec lumifield train nerf --data "$1" --out "$2" --num-samples 64 --num-fine-samples 128 --batch-size 4096 --steps 200000 \
  --optimizer.lr 5e-4 --schedule.kind exponential --schedule.gamma 0.1 \
  "${@:3}"
