#!/bin/sh
# Proves that no object compiled for one instruction set offers a function that the linker could
# pick for another: every global or weak function it defines must be in its own namespace.
# Usage: scripts/check_isa_symbols.sh BUILD_DIR
set -eu
build=${1:?usage: check_isa_symbols.sh BUILD_DIR}
status=0
for isa in portable avx2 avx512 avx512_bf16; do
    folder="$build/kernels/CMakeFiles/plumb_kernels_$isa.dir"
    objects=$(find "$folder" -name '*.o')
    if [ -z "$objects" ]; then
        echo "check_isa_symbols: no objects in $folder" >&2
        exit 1
    fi
    # Symbol types: T/t code, W/V weak, u unique, B/D/R data; lower case is local (but w, v, u).
    # .gomp_critical_user_* are OpenMP's own named locks: data, the same in every instruction set.
    foreign=$(nm -C --defined-only $objects |
        awk 'NF >= 3 && $2 ~ /^[A-ZuwviWV]$/' |
        grep -v " plumb::cpu::$isa::" |
        grep -v -E "gomp_critical_user_|DW\.ref\.__gxx_personality_v0" || true)
    if [ -n "$foreign" ]; then
        echo "check_isa_symbols: $isa objects define symbols outside plumb::cpu::$isa:" >&2
        echo "$foreign" >&2
        status=1
    fi
done
[ $status -eq 0 ] && echo "check_isa_symbols: ok"
exit $status
