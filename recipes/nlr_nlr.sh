#!/usr/bin/env bash
# NLR++ on a capture in NLR's layout at a fifth of its size, as metanlrpp's nlrpp_nlr trains it.
# Usage: recipes/nlr_nlr.sh DATA OUT [further flags of `lumifield train nlr`, which win]
# Published, of the photographs that it learns from: 28.22 dB after 30 minutes, 35.54 dB in the end (three captures).
set -euo pipefail
exec "$(dirname "$0")/nlr_dtu.sh" "$1" "$2" --downscale 5 --steps 66000 --sdf-hidden-dim 256 --num-source-views 5 --patch-size 1000 \
  --num-joint-steps 100 --shape-update-interval 3 "${@:3}"
