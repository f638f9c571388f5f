#!/usr/bin/env bash
# A start for photographs of one place, each of which is a task, in 40 minutes on two CPU cores.
# Usage: recipes/meta_photographs.sh DATA OUT [further flags of `lumifield meta-train simple-nerf`, which win]
# DATA are posed photographs of any layout, of some 500 pixels. `lumifield eval OUT` learns the left half of each test
# photograph and scores the right one.
set -euo pipefail
exec lumifield meta-train simple-nerf --data "$1" --out "$2" \
  --downscale 4 --num-samples 64 --minutes 40 --num-views 1 --inner.steps 24 --inner.batch-size 96 \
  --inner.optimizer.kind adam --inner.optimizer.lr 1e-3 --outer.kind sgd --outer.lr 0.3 \
  --outer-schedule.kind cosine --outer-schedule.floor 0.1 --few-shot.loop.steps 256 --few-shot.loop.batch-size 96 \
  --few-shot.loop.optimizer.kind adam --few-shot.loop.optimizer.lr 1e-3 --validate-every 250 \
  "${@:3}"
