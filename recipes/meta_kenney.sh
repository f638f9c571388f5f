#!/usr/bin/env bash
# A start for small renderings of a class of objects, in an hour on two CPU cores: 64x64 pixels, near and far close to
# the objects.
# Usage: recipes/meta_kenney.sh DATA OUT [further flags of `lumifield meta-train simple-nerf`, which win]
# DATA is a class folder in learnit's layout with pictures of 128x128, the objects within the unit sphere.
set -euo pipefail
exec lumifield meta-train simple-nerf --data "$1" --out "$2" \
  --downscale 2 --near 3 --far 5 --samples 48 --minutes 60 --views 25 --inner.steps 16 --inner.batch 128 \
  --inner.optimiser.kind adam --inner.optimiser.lr 1e-3 --outer.kind sgd --outer.lr 0.5 \
  --outer-schedule.kind cosine --outer-schedule.floor 0.1 --few-shot.loop.steps 1000 \
  --few-shot.loop.batch 64 --few-shot.loop.optimiser.lr 0.5 --validate-every 250 \
  "${@:3}"
