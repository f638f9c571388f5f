#!/usr/bin/env bash
# The default method on a forward-facing LLFF scene (fern at 504x378): ten minutes on two CPU cores.
# Usage: recipes/instant_llff.sh DATA OUT [further flags of `lumifield train instant`, which win]
# Measured figures stand in the README. Score every 8th view, held out, with `lumifield eval OUT`.
set -euo pipefail
exec lumifield train instant --data "$1" --out "$2" --downscale 8 --minutes 10 "${@:3}"
