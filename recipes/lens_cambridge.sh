#!/usr/bin/env bash
# Views for localization on a scene of Cambridge Landmarks (StMarysChurch at 640x360), as nerfw-pytorch makes them for LENS.
# Usage: recipes/lens_cambridge.sh DATA OUT [further flags of `lumifield train nerf-w`, which win]
# The sequence is then in OUT/localize/sequence; `cp -r OUT/localize/sequence/. DATA` puts it beside the photographs.
# There: 4,000 views at least 2 m from matter and at most 6 m from a photograph, turned by up to 9 degrees (which became
# 18 there), 20 epochs of the paper's networks. Here: one hour on the feature grid; `--backbone mlp --steps 300000` for those.
# Published (of LENS, median m / degrees, CoordiNet before -> after): King's 0.70/0.92 -> 0.33/0.5, Old Hospital
# 0.97/2.08 -> 0.44/0.9, Shop Facade 0.69/3.74 -> 0.27/1.6, St Mary's 1.32/3.56 -> 0.53/1.6. Not measured here.
set -euo pipefail
lumifield train nerf-w --data "$1" --out "$2" --downscale 3 --minutes 60 "${@:3}"
lumifield localize density "$2" --num-cells 4000000 --margin 2.1
lumifield localize select "$2" --num-views 4000 --min-clearance 2 --max-camera-distance 6 --rotation-range 9
lumifield localize synthesize "$2"
