#!/usr/bin/env bash
# Runs scripts/gpu_verify.sh as on a machine with a GPU, at its smallest sizes: nvidia-smi and
# compute-sanitizer are a few lines made here, the programs those that are linked with the emulated
# GPU. Then what must make it fail, and what must not.
# Usage: gpu_verify_test.sh BUILD_FOLDER
set -uo pipefail
cd "$(dirname "$0")/../.." || exit 1
from=$(cd "$1" && pwd) || exit 1
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
build=$folder/build
mkdir -p "$build/tests" "$build/bin" "$build/perf" "$folder/path"
ln -s "$from"/tests/{kernels,runtime_engine,trainer,infer}_tests "$build/tests/"
ln -s "$from/tests/emulated" "$build/tests/emulated"
ln -s "$from"/bin/plumb-{plan,data} "$from"/tests/emulated/plumb-{train,infer} "$build/bin/"
ln -s "$from/tests/step_bench_emulated" "$build/perf/step_bench"
ln -s "$from/tests/gpu_kernels_bench_emulated" "$build/perf/gpu_kernels_bench"

cat > "$folder/path/nvidia-smi" <<'SMI'
#!/usr/bin/env bash
[[ ${*: -1} == 0 ]] || exit 6
case $1 in
    --query-gpu=name,*) echo "Emulated GPU, 580.1, 1024" ;;
    --query-gpu=compute_cap) echo 8.0 ;;
    --query-gpu=memory.used) echo 0 ;;
esac
SMI
# As it is where the tool does not know the machine: memcheck only.
cat > "$folder/path/compute-sanitizer" <<'TOOL'
#!/usr/bin/env bash
[[ $2 == racecheck ]] && echo "Error: Device not supported" && exit 1
shift 4
exec "$@"
TOOL
chmod +x "$folder"/path/*
export PATH=$folder/path:$PATH
unset CUDA_VISIBLE_DEVICES

failed=0
# verify CODE ARGUMENT...: with that exit code.
verify() {
    local expected=$1 rc
    shift
    scripts/gpu_verify.sh --smoke --build "$build" "$@" "$folder/result.json" > "$folder/out.txt" 2>&1
    rc=$?
    if [[ $rc != "$expected" ]]; then
        echo "FAILED: gpu_verify.sh $* exits $rc, not $expected"
        cat "$folder/out.txt"
        failed=1
    fi
}
# result PART TEXT: what the last run's file says of a part.
result() {
    if ! grep -q "\"part\": \"$1\", .*\"result\": \"$2\"" "$folder/result.json"; then
        echo "FAILED: $1 is not \"$2\":"
        grep '"part"' "$folder/result.json"
        failed=1
    fi
}
# contains FILE TEXT
contains() {
    grep -q "$2" "$1" || { echo "FAILED: no \"$2\" in ${1##*/}"; failed=1; }
}

verify 0
cat "$folder/out.txt"
for part in kernels sessions training inference train-124m steps-bench kernels-bench \
    profile-train profile-decode memcheck synccheck memcheck-all; do
    result $part passed
done
result racecheck skipped
for found in '"after_start_bytes": 0' '"train": "tiny"' '"kernel": "norm' '"profile": "train tiny"' \
    '"profile": "decode tiny"' '"targets": \['; do
    contains "$folder/result.json" "$found"
done

# A may that finds no time left fails nothing; a must does.
verify 0 --only synccheck --seconds 10
result synccheck "not run"
verify 1 --only inference --seconds 0
result inference "not run"
verify 1 --only inference --seconds 1
result inference "out of time"
verify 2 --only nothing
CUDA_VISIBLE_DEVICES=1 verify 2 --only inference

# Tests that fail, and a filter that finds none.
broken() { # broken PROGRAM COMMAND...: COMMAND instead of a program of the build folder
    rm "$build/$1"
    printf '#!/usr/bin/env bash\n%s\n' "$2" > "$build/$1"
    chmod +x "$build/$1"
}
broken tests/infer_tests 'echo "[  FAILED  ] GpuInfer.Some (1 ms)"; exit 1'
verify 1 --only inference
result inference failed
broken tests/infer_tests "exec '$from/tests/infer_tests' --gtest_filter=Nothing"
verify 1 --only inference
result inference failed

# Memory that is taken after the start, and more of it than the plan's row for CUDA.
train="'$from/tests/emulated/plumb-train' \"\$@\" | sed -E"
broken bin/plumb-train "$train 's/, 0 were taken after/, 4096 were taken after/'"
verify 1 --only train-124m
contains "$folder/result/train-124m.txt" "memory was taken after the start"
broken bin/plumb-train "$train 's/^(memory of .*: )([0-9]+) bytes/\19\2 bytes/'"
verify 1 --only train-124m
contains "$folder/result/train-124m.txt" "CUDA took more than its row"
broken bin/plumb-train "$train '/^memory of /d'"
verify 1 --only train-124m
result train-124m failed
exit $failed
