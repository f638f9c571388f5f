#!/usr/bin/env bash
# Meta-learned initialization for NLR captures with the settings of metanlrpp's nlrpp_nlr_meta. DATA is a folder of captures.
# Usage: recipes/meta_nlr_nlr.sh DATA OUT [further options of `lumifield meta-train nlr`, which take precedence]
set -euo pipefail
exec "$(dirname "$0")/meta_nlr_dtu.sh" "$1" "$2" --downscale 5 --sdf-hidden-dim 256 --num-source-views 5 --patch-size 1000 "${@:3}"
