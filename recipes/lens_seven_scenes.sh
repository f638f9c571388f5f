#!/usr/bin/env bash
# Views for localization on a scene of 7-Scenes (fire at 320x240), as nerfw-pytorch makes them for LENS.
# Usage: recipes/lens_seven_scenes.sh DATA OUT [further flags of `lumifield train nerf-w`, which win]
# The sequence is then in OUT/localize/sequence; `cp -r OUT/localize/sequence/. DATA` puts it beside the photographs.
# There: 4,000 views at least 0.15 m from matter and at most as far from a photograph, turned by up to 9 degrees (which
# became 18 there), matter above a density of 20 for each quarter of the farthest depth, 20 epochs of the paper's networks.
# Here: one hour on the feature grid; `--backbone mlp --steps 300000` for those.
# Published (of LENS, median m / degrees): chess 0.03/1.3, fire 0.10/3.7, heads 0.07/5.8, office 0.07/1.9, pumpkin
# 0.08/2.2, redkitchen 0.09/2.2, stairs 0.14/3.6. Not measured here.
set -euo pipefail
lumifield train nerf-w --data "$1" --out "$2" --downscale 2 --minutes 60 "${@:3}"
lumifield localize density "$2" --margin 0.25
lumifield localize select "$2" --num-views 4000 --min-clearance 0.15 --max-camera-distance 0.15 --rotation-range 9
lumifield localize synthesize "$2"
