#!/usr/bin/env bash
# A start for photographs of Notre-Dame, each of which is a task, with the settings of nerf-meta.
# Usage: recipes/meta_tourism_notre.sh DATA OUT [further flags of `lumifield meta-train simple-nerf`, which win]
# `lumifield eval OUT` learns the left half of each test photograph and scores the right one.
set -euo pipefail
exec lumifield meta-train simple-nerf --data "$1" --out "$2" \
  --epochs 40 --num-views 1 --sampling official --inner.steps 64 --inner.batch-size 64 --inner.optimizer.lr 1 \
  --outer.lr 5e-4 --few-shot.loop.steps 256 --few-shot.loop.batch-size 64 --few-shot.loop.optimizer.lr 1 \
  --validation-steps 64 \
  "${@:3}"
