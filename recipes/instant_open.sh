#!/usr/bin/env bash
# The default method on photographs of an open scene from all round (instant-ngp's fox): ten minutes on two CPU cores.
# Usage: recipes/instant_open.sh DATA OUT [further flags of `lumifield train instant`, which win]
# Measured figures stand in the README. Score every 8th view, held out, with `lumifield eval OUT`.
set -euo pipefail
exec lumifield train instant --data "$1" --out "$2" --minutes 10 "${@:3}"
