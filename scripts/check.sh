#!/usr/bin/env bash
# Runs every check that needs no build, and fails if any of them does.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1
failed=0
scripts/check_includes.py --self-test || failed=1
scripts/check_includes.py || failed=1
scripts/check_words.sh || failed=1
scripts/format.sh --check || failed=1
exit $failed
