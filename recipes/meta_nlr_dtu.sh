#!/usr/bin/env bash
# Meta-learned initialization for DTU scans with the settings of metanlrpp's nlrpp_dtu_meta: Reptile, 64 steps per scan; the
# outer learning rate of the shape is a fifth of the others. DATA is a folder of scans.
# Usage: recipes/meta_nlr_dtu.sh DATA OUT [further options of `lumifield meta-train nlr`, which take precedence]
# Uses the seven training images of each scan; metanlrpp used all 49.
set -euo pipefail
exec lumifield meta-train nlr --data "$1" --out "$2" --downscale 2 --epochs 980 --num-views 0 \
  --features learned --encoder-width 64 --decoder-width 64 --patch-size 600 --num-source-views 6 --sdf-hidden-dim 128 \
  --num-mask-rays 16384 --num-mask-samples 40 --mask-sharpness-interval 99999 --num-eikonal-points 32768 \
  --num-mask-only-steps 0 --shape-learning-rate-factor 0.2 --shape-update-interval 1 \
  --visibility-tolerance 0.0224 --min-visibility-tolerance 0.0224 --inner.steps 64 --inner.optimizer.kind adam --inner.optimizer.lr 5e-4 \
  --outer.kind sgd --outer.lr 0.05 --use-method-rates "${@:3}"
