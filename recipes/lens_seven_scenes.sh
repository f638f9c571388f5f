#!/usr/bin/env bash
# Synthetic views for localization on a 7-Scenes scene (fire at 320x240), as nerfw-pytorch renders them for LENS.
# Usage: recipes/lens_seven_scenes.sh DATA OUT [further options of `lumifield train nerf-w`, which take precedence]
# The sequence is written to OUT/localize/sequence; `cp -r OUT/localize/sequence/. DATA` adds it to the scene.
# nerfw-pytorch: 4,000 views at least 0.15 m from surfaces and at most 0.15 m from a training camera, rotated by up to 9
# degrees (in effect 18), occupied above a density of 20 per quarter of the farthest depth, 20 epochs of the paper's networks.
# This recipe: one hour with the hash grid; `--backbone mlp --steps 300000` uses the paper's networks.
# Published (LENS, median m / degrees): chess 0.03/1.3, fire 0.10/3.7, heads 0.07/5.8, office 0.07/1.9, pumpkin
# 0.08/2.2, redkitchen 0.09/2.2, stairs 0.14/3.6. Not measured with Lumifield.
set -euo pipefail
lumifield train nerf-w --data "$1" --out "$2" --downscale 2 --minutes 60 "${@:3}"
lumifield localize density "$2" --margin 0.25
lumifield localize select "$2" --num-views 4000 --min-clearance 0.15 --max-camera-distance 0.15 --rotation-range 9
lumifield localize synthesize "$2"
