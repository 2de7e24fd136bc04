#!/usr/bin/env bash
# Runs clang-tidy with the flags of the clang preset. Usage: tidy.sh [FOLDER...]
# The default rooms are those where a slip costs most and a file takes seconds.
set -euo pipefail
cd "$(dirname "$0")/.."
[[ $# == 0 ]] && set -- runtime/base runtime/program runtime/plan

scripts/install_deps.sh --ci
cmake --preset clang "-DPLUMB_TEST_DATA=${PLUMB_TEST_DATA:-}" > /dev/null
git ls-files -z -- "${@/%//*.cpp}" |
    xargs -0 -r -n 1 -P "$(nproc)" clang-tidy --quiet -p build/clang 2>&1 |
    sed '/ warnings\{0,1\} generated\.$/d'
echo "tidy: $* are clean"
