#!/usr/bin/env bash
# NLR++ on an NLR capture at a fifth of its size, with the settings of metanlrpp's nlrpp_nlr.
# Usage: recipes/nlr_nlr.sh DATA OUT [further options of `lumifield train nlr`, which take precedence]
# Published, for training images: 28.22 dB after 30 minutes, 35.54 dB at the end (three captures).
set -euo pipefail
exec "$(dirname "$0")/nlr_dtu.sh" "$1" "$2" --downscale 5 --steps 66000 --sdf-hidden-dim 256 --num-source-views 5 --patch-size 1000 \
  --num-joint-steps 100 --shape-update-interval 3 "${@:3}"
