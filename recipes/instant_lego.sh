#!/usr/bin/env bash
# `instant` on NeRF's lego at 200x200: five minutes on two CPU cores.
# Usage: recipes/instant_lego.sh DATA OUT [further options of `lumifield train instant`, which take precedence]
# DATA holds 400x400 images; for 800x800 add --downscale 4. Measured: 33.79 dB, SSIM 0.981 (docs/experiments/results.md).
# `lumifield eval OUT` scores all 200 test views.
set -euo pipefail
exec lumifield train instant --data "$1" --out "$2" --downscale 2 --minutes 5 "${@:3}"
