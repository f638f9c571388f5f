#!/usr/bin/env bash
# MetaNLR++ on a scan of DTU: NLR++ from a learned start, as metanlrpp's nlrpp_dtu_metaspec trains it.
# Usage: recipes/nlr_dtu_from_start.sh DATA OUT START [further flags of `lumifield train nlr`, which win]
# START is the folder that recipes/meta_nlr_dtu.sh leaves. Published: 25 dB after 1.9 minutes, 30 dB after 22.5.
set -euo pipefail
exec "$(dirname "$0")/nlr_dtu.sh" "$1" "$2" --init "$3" --visibility-tolerance-interval 2000 "${@:4}"
