#!/usr/bin/env bash
# Meta-learned initialization for small renderings of an object category, in about ten minutes on two CPU cores: 64x64
# pixels, near and far close to the objects, a narrow network.
# Usage: recipes/meta_kenney.sh DATA OUT [further options of `lumifield meta-train simple-nerf`, which take precedence]
# DATA is a class folder in learnit's format with 128x128 images, objects inside the unit sphere.
# Kenney's cars from one image each, 4 test objects, three seeds: 18.5 to 18.8 dB before, 20.8 to 21.3 dB after 300 steps;
# a random initialization reaches 15.8 dB.
set -euo pipefail
exec lumifield meta-train simple-nerf --data "$1" --out "$2" \
  --downscale 2 --near 3 --far 5 --num-samples 32 --hidden-dim 128 --weight-init normal --steps 250 \
  --num-views 25 --inner.steps 64 --inner.batch-size 128 \
  --inner.optimizer.kind adam --inner.optimizer.lr 1e-3 --outer.kind sgd --outer.lr 0.5 \
  --outer-schedule.kind cosine --outer-schedule.floor 0.1 --few-shot.loop.steps 300 --few-shot.loop.batch-size 64 \
  --few-shot.loop.optimizer.kind adam --few-shot.loop.optimizer.lr 1e-3 --validate-every 100 --save-every 100 \
  "${@:3}"
