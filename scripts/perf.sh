#!/usr/bin/env bash
# Builds and runs every benchmark of perf/, one after another, alone on the machine.
# Usage: perf.sh [ARGUMENT...] (passed to each); SMOKE=1 runs each at its smallest size.
set -euo pipefail
cd "$(dirname "$0")/.."
[[ ${SMOKE:-} == 1 ]] && set -- --smoke "$@"

scripts/build.sh release
programs=()
for file in build/release/perf/*; do
    if [[ -f $file && -x $file ]]; then programs+=("$file"); fi
done
if [[ ${#programs[@]} == 0 ]]; then
    echo "error: no benchmark was built into build/release/perf" >&2
    exit 2
fi
for program in "${programs[@]}"; do
    echo "== ${program##*/}"
    "$program" "$@"
done
