#!/usr/bin/env bash
# `instant` on a forward-facing LLFF scene (fern at 504x378): ten minutes on two CPU cores.
# Usage: recipes/instant_llff.sh DATA OUT [further options of `lumifield train instant`, which take precedence]
# Measured: 25.74 dB, SSIM 0.809 (docs/experiments/results.md). `lumifield eval OUT` scores every 8th view, held out.
set -euo pipefail
exec lumifield train instant --data "$1" --out "$2" --downscale 8 --minutes 10 "${@:3}"
