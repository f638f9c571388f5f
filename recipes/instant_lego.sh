#!/usr/bin/env bash
# The default method on NeRF's lego at 200x200: five minutes on two CPU cores.
# Usage: recipes/instant_lego.sh DATA OUT [further flags of `lumifield train instant`, which win]
# DATA holds 400x400 images; where they are 800x800, add --downscale 4.
# Measured figures stand in the README. Score all 200 test views with `lumifield eval OUT`.
set -euo pipefail
exec lumifield train instant --data "$1" --out "$2" --downscale 2 --minutes 5 "${@:3}"
