#!/usr/bin/env bash
# Meta-learned initialization for images of one landmark, each of which is a task, in 40 minutes on two CPU cores.
# Usage: recipes/meta_landmark.sh DATA OUT [further options of `lumifield meta-train simple-nerf`, which take precedence]
# DATA holds posed images in any format, of about 500 pixels. `lumifield eval OUT` adapts to the left half of each test
# image and scores the right half.
set -euo pipefail
exec lumifield meta-train simple-nerf --data "$1" --out "$2" \
  --downscale 4 --num-samples 64 --minutes 40 --num-views 1 --inner.steps 24 --inner.batch-size 96 \
  --inner.optimizer.kind adam --inner.optimizer.lr 1e-3 --outer.kind sgd --outer.lr 0.3 \
  --outer-schedule.kind cosine --outer-schedule.floor 0.1 --few-shot.loop.steps 256 --few-shot.loop.batch-size 96 \
  --few-shot.loop.optimizer.kind adam --few-shot.loop.optimizer.lr 1e-3 --validate-every 250 \
  "${@:3}"
