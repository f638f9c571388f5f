#!/usr/bin/env bash
# `instant` on an unbounded scene captured from all sides (fox of instant-ngp): ten minutes on two CPU cores.
# Usage: recipes/instant_open.sh DATA OUT [further options of `lumifield train instant`, which take precedence]
# Measured: 25.43 dB, SSIM 0.753 (docs/experiments/results.md). `lumifield eval OUT` scores every 8th view, held out.
set -euo pipefail
exec lumifield train instant --data "$1" --out "$2" --minutes 10 "${@:3}"
