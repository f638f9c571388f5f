#!/usr/bin/env bash
# MetaNLR++ on a DTU scan: NLR++ from a meta-learned initialization, with the settings of metanlrpp's nlrpp_dtu_metaspec.
# Usage: recipes/nlr_dtu_from_meta.sh DATA OUT INIT [further options of `lumifield train nlr`, which take precedence]
# INIT is the output of recipes/meta_nlr_dtu.sh. Published: 25 dB after 1.9 minutes, 30 dB after 22.5.
set -euo pipefail
exec "$(dirname "$0")/nlr_dtu.sh" "$1" "$2" --init "$3" --visibility-tolerance-interval 2000 "${@:4}"
