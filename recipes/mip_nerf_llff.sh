#!/usr/bin/env bash
# mip-NeRF on a forward-facing LLFF scene at 1008x756 with the settings of the release: cylinders, noise 1, 4,096 rays.
# Usage: recipes/mip_nerf_llff.sh DATA OUT [further options of `lumifield train mip-nerf`, which take precedence]
# Published: no figure. Every eighth image is a test image. A million steps.
set -euo pipefail
exec lumifield train mip-nerf --data "$1" --out "$2" --downscale 4 --hold-out every-8th --density-noise-std 1 --num-samples 128 \
  --batch-size 4096 --steps 1000000 --optimizer.lr 5e-4 --schedule.kind exponential --schedule.gamma 0.01 \
  --schedule.warmup sine --schedule.warmup-steps 2500 --schedule.warmup-factor 0.01 \
  "${@:3}"
