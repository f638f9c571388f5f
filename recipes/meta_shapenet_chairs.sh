#!/usr/bin/env bash
# Meta-learned initialization for ShapeNet chairs from 25 views each, with the settings of nerf-meta; DATA is the class folder in
# learnit's format.
# Usage: recipes/meta_shapenet_chairs.sh DATA OUT [further options of `lumifield meta-train simple-nerf`, which take precedence]
# Published, from one image of 128x128: 18.85 dB; output-matched initialization 16.40 dB, random initialization 12.49 dB (Tancik
# et al. 2021). `lumifield eval OUT` scores the frames of nerf-meta, with --held-out-frames 25 50 those of learnit.
set -euo pipefail
exec lumifield meta-train simple-nerf --data "$1" --out "$2" \
  --epochs 15 --num-views 25 --sampling official --inner.steps 32 --inner.batch-size 128 --inner.optimizer.lr 0.5 \
  --outer.lr 5e-4 --few-shot.num-support-images 1 --few-shot.held-out-frames 1 26 --few-shot.loop.steps 1000 \
  --few-shot.loop.batch-size 64 --few-shot.loop.optimizer.lr 0.5 \
  "${@:3}"
