#!/usr/bin/env bash
# Installs what is missing, configures one CMake preset and builds it.
# Usage: build.sh [PRESET] [TARGET...]   (default: preset release, every target)
# PLUMB_TEST_DATA=DIR names a folder of extra test data; its tests exist only when it is set.
set -euo pipefail
cd "$(dirname "$0")/.."
preset=${1:-release}
shift || true

ci=
if [[ $preset == clang || $preset == fuzz ]]; then ci=--ci; fi
scripts/install_deps.sh $ci
cmake --preset "$preset" "-DPLUMB_TEST_DATA=${PLUMB_TEST_DATA:-}"
cmake --build --preset "$preset" --parallel "$(nproc)" ${1:+--target "$@"}
