#!/usr/bin/env bash
# `nerf-w` on internet images of one landmark (Photo Tourism: a COLMAP model and a .tsv file): ten minutes on two cores.
# Usage: recipes/nerf_w_phototourism.sh DATA OUT [further options of `lumifield train nerf-w`, which take precedence]
# After minutes errors are still near 0.1: a smaller minimum uncertainty would attribute them to transient objects.
# `lumifield eval OUT` fits the appearance of each test image to its left half and scores its right half.
set -euo pipefail
exec lumifield train nerf-w --data "$1" --out "$2" --minutes 10 --beta-min 0.1 "${@:3}"
