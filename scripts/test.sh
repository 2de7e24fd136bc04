#!/usr/bin/env bash
# Builds a preset with all its tests and runs them. Usage: test.sh [PRESET] [CTEST ARGUMENT...]
set -euo pipefail
cd "$(dirname "$0")/.."
preset=${1:-release}
shift || true

scripts/build.sh "$preset"
ctest --test-dir "build/$preset" --parallel "$(nproc)" --output-on-failure --no-tests=error "$@"
