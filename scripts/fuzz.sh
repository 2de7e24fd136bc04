#!/usr/bin/env bash
# Builds the fuzz targets of tests/fuzz with clang, AddressSanitizer and UBSan, and gives each RUNS
# inputs, mutated from its corpus and from what earlier runs of this script found new.
# Usage: fuzz.sh [RUNS [SEED]]   (default 10000 and 1)
#        fuzz.sh --minimise      (puts the least set of all inputs with their coverage in the corpora)
# A finding ends with the input's name in build/fuzz/found; give it to the target as an argument.
set -euo pipefail
cd "$(dirname "$0")/.."
runs=${1:-10000}
seed=${2:-1}
if [[ $runs != --minimise && ! $runs =~ ^[1-9][0-9]*$ ]] || [[ ! $seed =~ ^[1-9][0-9]*$ ]]; then
    echo "error: fuzz.sh: '$runs' '$seed' are not whole numbers, 1 or more" >&2
    exit 2
fi
scripts/build.sh fuzz fuzz_targets
# A larger quarantine costs time in fresh pages, longer stacks of each malloc time in unwinding.
export ASAN_OPTIONS=quarantine_size_mb=8:malloc_context_size=2
# Ample for what these hold; longer inputs only take longer.
declare -A max_len=([token_sidecar]=512 [run_file]=2048 [manifest]=2048)
mkdir -p build/fuzz/found

for folder in tests/fuzz/corpus/*; do
    name=${folder##*/}
    target=build/fuzz/tests/fuzz/${name}_fuzz
    found=build/fuzz/corpus/$name
    mkdir -p "$found"
    if [[ $runs == --minimise ]]; then
        rm -rf build/fuzz/least
        mkdir build/fuzz/least
        # The named seeds stay; of the rest, called by their hash, the fewest that reach all code.
        find "$folder" -type f ! -regex '.*/[0-9a-f]*' -exec cp -t build/fuzz/least {} +
        "$target" -set_cover_merge=1 -use_counters=0 build/fuzz/least "$folder" "$found" \
            2> build/fuzz/log
        rm -rf "$folder"
        mv build/fuzz/least "$folder"
        du -b -s "$folder"
        continue
    fi
    # The entropic schedule's book-keeping takes up to a third of the time.
    if ! "$target" -runs="$runs" -seed="$seed" -max_len="${max_len[$name]:-4096}" -entropic=0 \
        -timeout=120 -artifact_prefix="build/fuzz/found/$name-" "$found" "$folder" \
        2> build/fuzz/log; then
        grep -v -E '^#[0-9]+' build/fuzz/log | tail -n 60 >&2
        echo "error: fuzz.sh: the input above breaks $name" >&2
        exit 1
    fi
    echo "$name: $(tail -n 1 build/fuzz/log)"
done
