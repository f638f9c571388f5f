#!/usr/bin/env bash
# Meta-learned initialization for images of the Trevi Fountain, each of which is a task, with the settings of nerf-meta.
# Usage: recipes/meta_tourism_trevi.sh DATA OUT [further options of `lumifield meta-train simple-nerf`, which take precedence]
# `lumifield eval OUT` adapts to the left half of each test image and scores the right half.
# Quoted by the K-Planes paper for right halves: 19.35 dB.
set -euo pipefail
exec lumifield meta-train simple-nerf --data "$1" --out "$2" \
  --epochs 45 --num-views 1 --sampling official --inner.steps 64 --inner.batch-size 64 --inner.optimizer.lr 1 \
  --outer.lr 5e-4 --few-shot.loop.steps 256 --few-shot.loop.batch-size 64 --few-shot.loop.optimizer.lr 1 \
  --validation-steps 64 \
  "${@:3}"
