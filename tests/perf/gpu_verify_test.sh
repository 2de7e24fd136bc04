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
    --query-gpu=memory.used) echo "${USED_MIB-0}" ;;
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
# log PART TEXT: that the last run's part printed.
log() {
    tar -xzO -f "$folder/result-logs.tar.gz" "result-logs/$1.txt" | grep "$2" > /dev/null ||
        { echo "FAILED: $1 does not say \"$2\""; failed=1; }
}
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
    profile-train profile-decode profile-train-1558m profile-train-7b profile-decode-7b \
    memcheck synccheck memcheck-all; do
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
verify 2 --only inference,profile-decode --seconds 54
contains "$folder/out.txt" "need 55 s, more than --seconds 54"
verify 2 --only nothing
CUDA_VISIBLE_DEVICES=1 verify 2 --only inference

# Tests that fail, and a filter that finds none.
broken() { # broken PROGRAM COMMAND...: COMMAND instead of a program of the build folder
    rm "$build/$1"
    printf '#!/usr/bin/env bash\n%s\n' "$2" > "$build/$1"
    chmod +x "$build/$1"
}
broken perf/step_bench 'sleep 100'
verify 1 --only profile-decode --seconds 25
result profile-decode "out of time"
# A GPU that programs cannot use, for want of cuBLASLt too, where Python's is of no help.
for why in "no NVIDIA driver is loaded" "there is no cuBLASLt"; do
    broken perf/gpu_kernels_bench "echo 'error: $why' >&2; exit 2"
    verify 2 --only inference
    contains "$folder/out.txt" "$why"
done
rm "$build/perf/gpu_kernels_bench"
verify 2 --only inference
contains "$folder/out.txt" "no .*/perf/gpu_kernels_bench"
ln -s "$from/tests/gpu_kernels_bench_emulated" "$build/perf/gpu_kernels_bench"
broken tests/infer_tests 'echo "[  FAILED  ] GpuInfer.Some (1 ms)"; exit 1'
verify 1 --only inference
result inference failed
broken tests/infer_tests 'printf "[       OK ] A.B (1 ms)\n[  SKIPPED ] A.C (1 ms)\n"'
verify 0 --only inference
contains "$folder/result.json" '"passed": 1, "failed": 0, "skipped": 1,'
broken tests/infer_tests "exec '$from/tests/infer_tests' --gtest_filter=Nothing"
verify 1 --only inference
result inference failed

# Memory that is taken after the start, and more of it than the plan's row for CUDA; the digests are
# compared all the same.
train="'$from/tests/emulated/plumb-train' \"\$@\" | sed -E"
broken bin/plumb-train "$train 's/, 0 were taken after/, 4096 were taken after/'"
verify 1 --only train-124m
log train-124m "memory was taken after the start"
log train-124m "plans of plumb-plan and the run: the same"
log train-124m "states of graph and single launches: the same"
broken bin/plumb-train "$train 's/^(memory of .*: )([0-9]+) bytes/\19\2 bytes/'"
verify 1 --only train-124m
log train-124m "CUDA took more than its row"
broken bin/plumb-train "$train '/^memory of /d'"
verify 1 --only train-124m
log train-124m "does not say what memory it held"
rm "$build/bin/plumb-train"
ln -s "$from/tests/emulated/plumb-train" "$build/bin/"
USED_MIB="[N/A]" verify 0 --only train-124m
log train-124m 'note: nvidia-smi says "\[N/A\]"'
# Digests that differ, and that are not there.
changed() { # changed RUN SED: a command of sed for what a run, graph or eager, has logged
    broken bin/plumb-train "'$from/tests/emulated/plumb-train' \"\$@\" || exit
for argument; do
    [[ \$argument != --checkpoint.dir=*/$1 ]] || sed -i '$2' \"\${argument#*=}/log.jsonl\"
done"
}
changed graph 's/"digest":"/&x/'
verify 1 --only train-124m
log train-124m "FAILED: plans of plumb-plan and the run"
log train-124m "states of graph and single launches: the same"
changed eager 's/"state_digest":"/&x/'
verify 1 --only train-124m
log train-124m "plans of plumb-plan and the run: the same"
log train-124m "FAILED: states of graph and single launches"
changed '*' 's/digest//'
verify 1 --only train-124m
log train-124m "FAILED: plans of plumb-plan and the run"
log train-124m "FAILED: states of graph and single launches"
exit $failed
