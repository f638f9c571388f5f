#!/usr/bin/env bash
# Synthetic views for localization on a Cambridge Landmarks scene (StMarysChurch at 640x360), as nerfw-pytorch renders them
# for LENS.
# Usage: recipes/lens_cambridge.sh DATA OUT [further options of `lumifield train nerf-w`, which take precedence]
# The sequence is written to OUT/localize/sequence; `cp -r OUT/localize/sequence/. DATA` adds it to the scene.
# nerfw-pytorch: 4,000 views at least 2 m from surfaces and at most 6 m from a training camera, rotated by up to 9 degrees
# (in effect 18), 20 epochs of the paper's networks. This recipe: one hour with the hash grid; `--backbone mlp --steps 300000`
# uses the paper's networks.
# Published (LENS, median m / degrees, CoordiNet before -> after): King's 0.70/0.92 -> 0.33/0.5, Old Hospital
# 0.97/2.08 -> 0.44/0.9, Shop Facade 0.69/3.74 -> 0.27/1.6, St Mary's 1.32/3.56 -> 0.53/1.6. Not measured with Lumifield.
set -euo pipefail
lumifield train nerf-w --data "$1" --out "$2" --downscale 3 --minutes 60 "${@:3}"
lumifield localize density "$2" --num-cells 4000000 --margin 2.1
lumifield localize select "$2" --num-views 4000 --min-clearance 2 --max-camera-distance 6 --rotation-range 9
lumifield localize synthesize "$2"
