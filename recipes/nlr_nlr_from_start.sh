#!/usr/bin/env bash
# MetaNLR++ on a capture in NLR's layout: NLR++ from a learned start, as metanlrpp's nlrpp_nlr_metaspec trains it.
# Usage: recipes/nlr_nlr_from_start.sh DATA OUT START [further flags of `lumifield train nlr`, which win]
# START is the folder that recipes/meta_nlr_nlr.sh leaves. Published, of the photographs that it learns from: 31.12 dB
# after 30 minutes, 37.55 dB in the end.
set -euo pipefail
exec "$(dirname "$0")/nlr_nlr.sh" "$1" "$2" --init "$3" --visibility-tolerance-interval 2000 "${@:4}"
