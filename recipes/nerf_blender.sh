#!/usr/bin/env bash
# NeRF on a Blender scene at 400x400, as nerf_pl trains it: 64 + 64 samples, 16 epochs of 1,024 rays.
# Usage: recipes/nerf_blender.sh DATA OUT [further flags of `lumifield train nerf`, which win]
# DATA holds 800x800 images; where they are 400x400 already, add --downscale 1.
# Published: lego 31.39 dB (nerf_pl, README), about 8.3 h on one RTX 2080 Ti.
# An epoch is every training pixel once: 100 images x 400 x 400 / 1,024 = 15,625 steps. The rate is halved after 2, 4
# and 8 of 16 epochs. Density is softplus here; nerf_pl's own choices are `--density-activation relu --early-skip`.
set -euo pipefail
exec lumifield train nerf --data "$1" --out "$2" --downscale 2 --num-samples 64 --num-fine-samples 64 --batch-size 1024 \
  --steps 250000 --optimizer.lr 5e-4 --schedule.kind step --schedule.milestones 0.125 0.25 0.5 --schedule.gamma 0.5 \
  "${@:3}"
