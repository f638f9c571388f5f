#!/usr/bin/env bash
# NLR++ on a DTU scan at 800x600 from seven images, with the settings of metanlrpp's nlrpp_dtu.
# Usage: recipes/nlr_dtu.sh DATA OUT [further options of `lumifield train nlr`, which take precedence]
# A step trains a patch of one image; metanlrpp trained four whole images. Published: 25 dB after 3.2 minutes, 30 dB after
# 37.4, at most 31.02 dB (three scans, masked images; Quadro RTX 6000).
set -euo pipefail
exec lumifield train nlr --data "$1" --out "$2" --downscale 2 --steps 147000 --max-grad-norm 1 \
  --features learned --encoder-width 64 --decoder-width 64 --patch-size 600 --num-source-views 6 --sdf-hidden-dim 128 \
  --num-mask-rays 16384 --num-mask-samples 40 --mask-sharpness-interval 2000 --num-eikonal-points 32768 \
  --num-mask-only-steps 0 --shape-learning-rate-factor 0.2 --num-joint-steps 50 --shape-update-interval 7 \
  --visibility-tolerance 0.0316 --min-visibility-tolerance 0.00316 --visibility-tolerance-interval 3000 --schedule.kind step --schedule.gamma 0.5 \
  --schedule.milestone-steps 2000 6000 14000 30000 62000 124000 --schedule.floor 0 "${@:3}"
