#!/usr/bin/env bash
# A start for captures in NLR's layout, as metanlrpp's nlrpp_nlr_meta learns it. DATA is a folder of captures.
# Usage: recipes/meta_nlr_nlr.sh DATA OUT [further flags of `lumifield meta-train nlr`, which win]
set -euo pipefail
exec "$(dirname "$0")/meta_nlr_dtu.sh" "$1" "$2" --downscale 5 --sdf-hidden-dim 256 --num-source-views 5 --patch-size 1000 "${@:3}"
