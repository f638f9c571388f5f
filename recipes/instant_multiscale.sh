#!/usr/bin/env bash
# The default method on a multiscale Blender scene (lego at 400, 200, 100 and 50 pixels): eight minutes on two CPU cores.
# Usage: recipes/instant_multiscale.sh DATA OUT [further flags of `lumifield train instant`, which win]
# `lumifield synthesize-data multiscale --from SCENE --out DATA` makes DATA; --no-anti-alias is the comparison.
# Measured figures stand in the README. `lumifield eval OUT` scores each size on its own.
set -euo pipefail
exec lumifield train instant --data "$1" --out "$2" --minutes 8 "${@:3}"
