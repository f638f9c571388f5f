#!/usr/bin/env bash
# Meta-learned initialization of `instant` for an object category, in 15 minutes on two CPU cores, for new objects with few
# images.
# Usage: recipes/meta_instant_kenney.sh DATA OUT [further options of `lumifield meta-train instant`, which take precedence]
# DATA is a class folder in learnit's format. A new object: `lumifield train --data OBJECT --init OUT --out RUN`.
set -euo pipefail
exec lumifield meta-train instant --data "$1" --out "$2" \
  --minutes 15 --num-views 25 --inner.steps 96 --inner.batch-size 1024 --inner.optimizer.kind adam --inner.optimizer.lr 1e-2 \
  --inner.optimizer.betas 0.9 0.99 --inner.optimizer.eps 1e-15 \
  --outer.kind sgd --outer.lr 0.5 --outer-schedule.kind cosine --outer-schedule.floor 0.1 \
  --few-shot.num-support-images 10 --few-shot.loop.steps 100 --few-shot.loop.batch-size 1024 --few-shot.loop.optimizer.kind adam \
  --few-shot.loop.optimizer.lr 1e-2 --few-shot.loop.optimizer.betas 0.9 0.99 --few-shot.loop.optimizer.eps 1e-15 \
  --validation-steps 100 --validate-every 60 \
  "${@:3}"
