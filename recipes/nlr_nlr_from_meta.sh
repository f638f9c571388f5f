#!/usr/bin/env bash
# MetaNLR++ on an NLR capture: NLR++ from a meta-learned initialization, with the settings of metanlrpp's nlrpp_nlr_metaspec.
# Usage: recipes/nlr_nlr_from_meta.sh DATA OUT INIT [further options of `lumifield train nlr`, which take precedence]
# INIT is the output of recipes/meta_nlr_nlr.sh. Published, for training images: 31.12 dB after 30 minutes, 37.55 dB at the
# end.
set -euo pipefail
exec "$(dirname "$0")/nlr_nlr.sh" "$1" "$2" --init "$3" --visibility-tolerance-interval 2000 "${@:4}"
