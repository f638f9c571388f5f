#!/usr/bin/env bash
# A start for scans of DTU, as metanlrpp's nlrpp_dtu_meta learns it: Reptile, 64 steps a scan; the shape's outer rate is
# a fifth of the others'. DATA is a folder of scans.
# Usage: recipes/meta_nlr_dtu.sh DATA OUT [further flags of `lumifield meta-train nlr`, which win]
# Of each scan the seven photographs for learning count; there it was all 49.
set -euo pipefail
exec lumifield meta-train nlr --data "$1" --out "$2" --downscale 2 --epochs 980 --num-views 0 \
  --features learned --encoder-width 64 --decoder-width 64 --patch-size 600 --num-source-views 6 --sdf-hidden-dim 128 \
  --num-mask-rays 16384 --num-mask-samples 40 --mask-sharpness-interval 99999 --num-eikonal-points 32768 \
  --num-mask-only-steps 0 --shape-learning-rate-factor 0.2 --shape-update-interval 1 \
  --visibility-tolerance 0.0224 --min-visibility-tolerance 0.0224 --inner.steps 64 --inner.optimizer.kind adam --inner.optimizer.lr 5e-4 \
  --outer.kind sgd --outer.lr 0.05 --use-method-rates "${@:3}"
