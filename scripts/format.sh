#!/usr/bin/env bash
# Formats every C++ file in place. Usage: format.sh [--check]   (--check changes nothing and fails
# when a file is not formatted). Another clang-format than 14 may differ in details: it is told.
set -euo pipefail
cd "$(dirname "$0")/.."
case "${1:-}" in
    "") mode=(-i) ;;
    --check) mode=(--dry-run -Werror) ;;
    *) echo "error: format.sh: unknown argument '$1' (only --check is known)" >&2; exit 2 ;;
esac
command -v clang-format > /dev/null || scripts/install_deps.sh --ci

version=$(clang-format --version | sed -n 's/.*version \([0-9]*\).*/\1/p')
[[ $version == 14 ]] || echo "note: clang-format is $version; the files are formatted by 14" >&2
git ls-files -z --cached --others --exclude-standard -- '*.h' '*.cpp' '*.cu' '*.cuh' |
    xargs -0 -r clang-format "${mode[@]}"
