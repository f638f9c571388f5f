#!/usr/bin/env bash
# NeRF on a forward-facing LLFF scene at 1008x756 with the settings of the paper: 64 + 128 samples, 4,096 rays, noise 1.
# Usage: recipes/nerf_llff_paper.sh DATA OUT [further options of `lumifield train nerf`, which take precedence]
# Published: 26.50 dB, SSIM 0.811 over eight scenes; fern 25.17 dB (Mildenhall et al. 2020, table 1 and appendix),
# 1 to 2 days on one V100. Every eighth image is a test image.
set -euo pipefail
exec lumifield train nerf --data "$1" --out "$2" --downscale 4 --hold-out every-8th --num-samples 64 --num-fine-samples 128 \
  --density-noise-std 1 --batch-size 4096 --steps 200000 --optimizer.lr 5e-4 --schedule.kind exponential --schedule.gamma 0.1 \
  "${@:3}"
