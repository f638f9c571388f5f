#!/usr/bin/env bash
# NeRF on a forward-facing LLFF scene at 1/8 size with the settings of nerf_pl: 64 + 64 samples, noise 1, 30 epochs.
# Usage: recipes/nerf_llff.sh DATA OUT [further options of `lumifield train nerf`, which take precedence]
# Published: no figure on held-out images; nerf_pl holds out the image nearest to the center, as this recipe does.
# The papers hold out every eighth image: add --hold-out every-8th.
# 106,000 steps are 30 epochs of fern: 19 images x 504 x 378 / 1,024 = 3,535 steps per epoch; for n images, 5,581 n steps.
# The learning rate is halved after 10 and 20 epochs. nerf_pl's choices are `--density-activation relu --early-skip
# --ndc-viewdirs`.
set -euo pipefail
exec lumifield train nerf --data "$1" --out "$2" --downscale 8 --hold-out center --num-samples 64 --num-fine-samples 64 \
  --density-noise-std 1 --batch-size 1024 --steps 106000 --optimizer.lr 5e-4 --schedule.kind step \
  --schedule.milestones 0.33333 0.66666 --schedule.gamma 0.5 \
  "${@:3}"
