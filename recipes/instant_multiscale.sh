#!/usr/bin/env bash
# `instant` on a multiscale Blender scene (lego at 400, 200, 100 and 50 pixels): eight minutes on two CPU cores.
# Usage: recipes/instant_multiscale.sh DATA OUT [further options of `lumifield train instant`, which take precedence]
# `lumifield synthesize-data multiscale --from SCENE --out DATA` creates DATA; --no-anti-alias is the ablation.
# Measured: 32.11 dB, mean over sizes (docs/experiments/results.md). `lumifield eval OUT` scores each size.
set -euo pipefail
exec lumifield train instant --data "$1" --out "$2" --minutes 8 "${@:3}"
