#!/usr/bin/env bash
# NeRF on a Blender scene at 400x400 with the settings of nerf_pl: 64 + 64 samples, 16 epochs of 1,024 rays.
# Usage: recipes/nerf_blender.sh DATA OUT [further options of `lumifield train nerf`, which take precedence]
# DATA holds 800x800 images; for 400x400 add --downscale 1.
# Published: lego 31.39 dB (nerf_pl, README), about 8.3 h on one RTX 2080 Ti.
# An epoch visits every training pixel once: 100 images x 400 x 400 / 1,024 = 15,625 steps. The learning rate is halved after
# 2, 4 and 8 of 16 epochs. Density uses softplus; nerf_pl's choices are `--density-activation relu --early-skip`.
set -euo pipefail
exec lumifield train nerf --data "$1" --out "$2" --downscale 2 --num-samples 64 --num-fine-samples 64 --batch-size 1024 \
  --steps 250000 --optimizer.lr 5e-4 --schedule.kind step --schedule.milestones 0.125 0.25 0.5 --schedule.gamma 0.5 \
  "${@:3}"
