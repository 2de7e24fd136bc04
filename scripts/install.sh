#!/usr/bin/env bash
# Builds the release preset and installs its programs into $PREFIX/bin (default /usr/local).
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/build.sh release
cmake --install build/release --prefix "${PREFIX:-/usr/local}"
