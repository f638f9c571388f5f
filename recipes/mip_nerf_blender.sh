#!/usr/bin/env bash
# mip-NeRF on a Blender scene at 800x800 with the settings of the release: 128 + 128 intervals, 4,096 rays, one image per step.
# Usage: recipes/mip_nerf_blender.sh DATA OUT [further options of `lumifield train mip-nerf`, which take precedence]
# Published: 33.09 dB, SSIM 0.961 over eight scenes; lego 35.70 dB (Barron et al. 2021, table 2 and appendix), a million
# steps in about 2.8 h on 32 TPU v2 cores.
set -euo pipefail
exec lumifield train mip-nerf --data "$1" --out "$2" --num-samples 128 --batch-size 4096 --single-image-batches --steps 1000000 \
  --optimizer.lr 5e-4 --schedule.kind exponential --schedule.gamma 0.01 \
  --schedule.warmup sine --schedule.warmup-steps 2500 --schedule.warmup-factor 0.01 \
  "${@:3}"
