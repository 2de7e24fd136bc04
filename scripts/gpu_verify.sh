#!/usr/bin/env bash
# Verifies the CUDA kernels on this machine's GPU: every kernel case against fp64, with cuBLASLt.
# Usage: gpu_verify.sh [OUTPUT.json]   (default perf/results/DATE-GPU.json)
# Uses build/cuda as it is (make cuda, here or on another machine of this kind) and installs nothing.
# Exits 0 when all pass, 1 when some fail, 2 when there is no GPU or no build.
set -euo pipefail
cd "$(dirname "$0")/.."
tests=build/cuda/tests/kernels_tests
if [[ ! -x $tests ]]; then
    echo "error: gpu_verify.sh: no $tests; build it with: make cuda" >&2
    exit 2
fi
if ! command -v nvidia-smi > /dev/null ||
    ! gpu=$(nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader -i 0); then
    echo "error: gpu_verify.sh: nvidia-smi finds no NVIDIA GPU here" >&2
    exit 2
fi
IFS=, read -r name driver memory <<< "$gpu"
commit=$(git describe --always --dirty --abbrev=12 2> /dev/null || echo unknown)
output=${1:-perf/results/$(date -u +%Y-%m-%d)-$(tr ' ' '-' <<< "$name").json}
mkdir -p "$(dirname "$output")"
log=$(mktemp)
trap 'rm -f "$log"' EXIT

echo "gpu_verify: $gpu; commit $commit"
begin=$SECONDS
status=0
"$tests" 2>&1 | tee "$log" | grep -E '^note:|FAILED|Failure|tests ran' || true
grep -q '^note: CUDA kernels run on' "$log" || status=1
passed=$(grep -c '^\[       OK \]' "$log" || true)
failed=$(grep -c '^\[  FAILED  \].* ms)$' "$log" || true)
grep -q '^\[==========\] .* ran\.' "$log" || status=1 # it ended before its last test
[[ $failed == 0 ]] || status=1
cat > "$output" <<JSON
{"date": "$(date -u +%Y-%m-%dT%H:%M:%SZ)", "commit": "$commit", "gpu": "$name", "driver": "${driver# }",
 "memory": "${memory# }", "cublaslt": "$(sed -n 's/.*cuBLASLt //p' "$log" | head -n 1)",
 "kernel_tests": {"passed": $passed, "failed": $failed, "complete": $([[ $status == 0 ]] && echo true || echo false)},
 "seconds": $((SECONDS - begin))}
JSON
echo "gpu_verify: $passed passed, $failed failed, $((SECONDS - begin)) s; $output"
exit $status
