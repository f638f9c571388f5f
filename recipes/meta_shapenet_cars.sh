#!/usr/bin/env bash
# A start for ShapeNet's cars from 25 views of each, with the settings of nerf-meta; DATA is the class folder in
# learnit's layout.
# Usage: recipes/meta_shapenet_cars.sh DATA OUT [further flags of `lumifield meta-train simple-nerf`, which win]
# In the paper, from one photograph of 128x128: 22.80 dB; matched start 22.39 dB, standard start 11.45 dB (Tancik et
# al. 2021). `lumifield eval OUT` scores the frames of nerf-meta, with --held-out-frames 25 50 those of learnit.
set -euo pipefail
exec lumifield meta-train simple-nerf --data "$1" --out "$2" \
  --epochs 30 --num-views 25 --sampling official --inner.steps 32 --inner.batch-size 128 --inner.optimizer.lr 0.5 \
  --outer.lr 5e-5 --few-shot.num-support-images 1 --few-shot.held-out-frames 1 26 --few-shot.loop.steps 2000 \
  --few-shot.loop.batch-size 64 --few-shot.loop.optimizer.lr 0.5 \
  "${@:3}"
