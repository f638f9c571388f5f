#!/usr/bin/env bash
# nerf-w on internet photographs of one place (Photo Tourism: a COLMAP model and a .tsv list): ten minutes on two cores.
# Usage: recipes/nerf_w_phototourism.sh DATA OUT [further flags of `lumifield train nerf-w`, which win]
# After minutes errors are still near 0.1: a smaller least uncertainty would take all of them for passing matter.
# `lumifield eval OUT` fits each test photograph's appearance to its left half and scores its right half.
set -euo pipefail
exec lumifield train nerf-w --data "$1" --out "$2" --minutes 10 --beta-min 0.1 "${@:3}"
