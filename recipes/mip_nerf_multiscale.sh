#!/usr/bin/env bash
# mip-NeRF on a multiscale Blender scene (800, 400, 200, 100 pixels) with the settings of the release: 4,096 rays of all sizes.
# Usage: recipes/mip_nerf_multiscale.sh DATA OUT [further options of `lumifield train mip-nerf`, which take precedence]
# `lumifield synthesize-data multiscale --from SCENE --out DATA` creates DATA from a Blender scene.
# Published: 32.63, 34.34, 35.47 and 35.60 dB from the largest size to the smallest, over eight scenes (Barron et al.
# 2021, table 1), a million steps in 2.84 h on 32 TPU v2 cores.
set -euo pipefail
exec lumifield train mip-nerf --data "$1" --out "$2" --num-samples 128 --batch-size 4096 --steps 1000000 \
  --optimizer.lr 5e-4 --schedule.kind exponential --schedule.gamma 0.01 \
  --schedule.warmup sine --schedule.warmup-steps 2500 --schedule.warmup-factor 0.01 \
  "${@:3}"
