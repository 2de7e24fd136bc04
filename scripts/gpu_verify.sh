#!/usr/bin/env bash
# Verifies on this machine's GPU what the emulated one cannot show, and measures: kernel cases against
# fp64 with cuBLASLt, golden losses, graphs against single launches, checkpoints against the CPU's,
# whole trainings and generations, memory taken after the start, compute-sanitizer where it is
# installed; then the benchmarks, with PyTorch beside them where it is installed. Under 9 minutes.
# Usage: gpu_verify.sh [OUTPUT.json]   (default perf/results/DATE-GPU.json)
# Uses build/cuda as it is (make cuda, here or on another machine of this kind) and installs nothing.
# What each part printed goes to a folder beside OUTPUT. Exits 0 when all pass, 1 when some fail, 2
# when there is no GPU or no build.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 2
build=build/cuda
limit_s=530
for program in tests/kernels_tests tests/runtime_engine_tests bin/plumb-train; do
    if [[ ! -x $build/$program ]]; then
        echo "error: gpu_verify.sh: no $build/$program; build it with: make cuda" >&2
        exit 2
    fi
done
if ! command -v nvidia-smi > /dev/null ||
    ! gpu=$(nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader -i 0); then
    echo "error: gpu_verify.sh: nvidia-smi finds no NVIDIA GPU here" >&2
    exit 2
fi
IFS=, read -r name driver memory <<< "$gpu"
commit=$(git describe --always --dirty --abbrev=12 2> /dev/null || echo unknown)
output=${1:-perf/results/$(date -u +%Y-%m-%d)-$(tr ' ' '-' <<< "$name").json}
logs=${output%.json}
mkdir -p "$logs"
export OMP_WAIT_POLICY=passive
# Behind where the system has cuBLASLt.
packages=$(scripts/cublaslt_path.sh)
[[ -z $packages ]] || export LD_LIBRARY_PATH=${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}$packages
echo "gpu_verify: $gpu; commit $commit"

status=0
parts=""
# part NAME SECONDS COMMAND...: runs it, at most so long and never past the limit of all.
part() {
    local part=$1 seconds=$2 begin=$SECONDS rc passed failed result
    shift 2
    ((SECONDS + seconds > limit_s)) && seconds=$((limit_s - SECONDS))
    if ((seconds < 5)); then
        rc=124
        echo "not run: the time was up" > "$logs/$part.txt"
    else
        timeout --kill-after=5 "$seconds" "$@" > "$logs/$part.txt" 2>&1
        rc=$?
    fi
    passed=$(grep -c '^\[       OK \]' "$logs/$part.txt")
    failed=$(grep -c '^\[  FAILED  \].* ms)$' "$logs/$part.txt")
    case $rc in
        0) result=passed ;;
        77) result=skipped ;;
        124 | 137) result="out of time" ;;
        *) result=failed ;;
    esac
    # A test program that ran nothing has shown nothing.
    [[ $1 == *_tests && $result == passed && $passed == 0 ]] && result=failed
    [[ $result == passed || $result == skipped ]] || status=1
    parts+="${parts:+,
  }{\"part\": \"$part\", \"result\": \"$result\", \"passed\": $passed, \"failed\": $failed, \"seconds\": $((SECONDS - begin))}"
    printf 'gpu_verify: %-22s %-11s %4d passed, %d failed, %d s\n' \
        "$part" "$result" "$passed" "$failed" "$((SECONDS - begin))"
    [[ $result == passed ]]
}

# GPT-2 124M as a user trains it: the memory that was held beside the plan (the last lines), the plan,
# graph against single launches.
train_124m() {
    local folder run
    folder=$(mktemp -d)
    trap 'rm -rf "$folder"' EXIT
    head -c 4000000 < <(while cat README.md DESIGN.md; do :; done) > "$folder/text.txt"
    "$build/bin/plumb-data" "$folder/text.txt" --out "$folder/data" || return 1
    run=(gpt2-124m --train.dtype=bf16
        --batch.sequence_length=1024 --batch.micro_batch=8 --batch.global_batch=16
        --train.steps=30 --train.warmup_steps=5 --train.eval_every=0 --train.sample_tokens=0
        "--data.train=$folder/data/train.bin" --checkpoint.every=15)
    "$build/bin/plumb-train" "${run[@]}" --run.device=cuda "--checkpoint.dir=$folder/graph" ||
        return 1
    cp "$folder/graph"/gemm_algorithms-*.txt "$logs/"
    # The same algorithms, kernel by kernel: the same digests.
    mkdir "$folder/eager"
    cp "$folder/graph"/gemm_algorithms-*.txt "$folder/eager/"
    "$build/bin/plumb-train" "${run[@]}" --run.device=cuda "--checkpoint.dir=$folder/eager" \
        --run.graph=false || return 1
    grep -q '"state_digest":"' "$folder/graph/log.jsonl" || return 1
    diff <(grep -o '"state_digest":"[^"]*"' "$folder/graph/log.jsonl") \
        <(grep -o '"state_digest":"[^"]*"' "$folder/eager/log.jsonl") || return 1
    echo "graph and single launches: the same digests"
    # The plan that a machine without a GPU makes.
    diff <("$build/bin/plumb-plan" "${run[@]}" "--run.device=cuda-sm$capability" --json |
        grep -o '"digest": *"[^"]*"' | tr -d ' ') \
        <(head -n 1 "$folder/graph/log.jsonl" | grep -o '"digest":"[^"]*"') || return 1
    echo "the run's plan is that of plumb-plan"
}
# COMMAND under compute-sanitizer's memcheck; 77 where that is not installed.
sanitize() {
    command -v compute-sanitizer > /dev/null || return 77
    compute-sanitizer --error-exitcode 1 "$@"
}
export -f train_124m sanitize
capability=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader -i 0 | tr -d .)
export build logs capability

tests=$build/tests
part kernels 150 "$tests/kernels_tests" --gtest_brief=0 \
    --gtest_filter='*/sm*:*_sm*:Kernels/*SmallCases*:Gpu*:*Gpu*:Tf32*:Gemm*:Product*:UsableGpu*'
part sessions 90 "$tests/runtime_engine_tests" --gtest_filter='*GpuSession*:Device*:ProductTable*'
part training 60 "$tests/trainer_tests" --gtest_filter='GpuTrain*'
part inference 30 "$tests/infer_tests" --gtest_filter='GpuInfer*'
part train-124m 60 bash -c train_124m
part sanitizer 40 bash -c 'sanitize "$@"' - "$tests/kernels_tests" \
    --gtest_filter='Kernels/Optimizer*/sm*:Kernels/AttentionTiles.*OfManyTiles/sm*:Kernels/Small*/*_1_1*'

benchmarks=""
# measure NAME SECONDS COMMAND...: a part that writes JSON to the file named last.
measure() {
    local what=$1 file=${*: -1}
    part "$@" || return
    [[ -s $file ]] && benchmarks+="${benchmarks:+,
  }\"$what\": $(cat "$file")"
}
perf=$build/perf
measure kernels-bench 90 "$perf/gpu_kernels_bench" --json "$logs/kernels.json"
measure steps-bench 100 "$perf/step_bench" --gpu --steps 8 --json "$logs/steps.json"
ours=("$perf/step_bench" --gpu --preset gpt2-124m --batch 16 --length 1024 --steps 20)
# In turns, so that both see the same machine.
for turn in 1 2; do
    measure "ours-$turn" 30 "${ours[@]}" --json "$logs/ours-$turn.json"
    if part "pytorch-$turn" 80 perf/pytorch_gpu.py gpt2-124m --batch 16 --length 1024; then
        benchmarks+="${benchmarks:+,
  }\"pytorch-$turn\": $(tail -n 1 "$logs/pytorch-$turn.txt")"
    fi
done
if part pytorch-attention 30 perf/pytorch_gpu.py attention; then
    benchmarks+="${benchmarks:+,
  }\"pytorch-attention\": $(tail -n 1 "$logs/pytorch-attention.txt")"
fi

cat > "$output" <<JSON
{"date": "$(date -u +%Y-%m-%dT%H:%M:%SZ)", "commit": "$commit", "gpu": "$name", "driver": "${driver# }",
 "memory": "${memory# }", "seconds": $SECONDS,
 "libraries": "$(sed -n 's/^note: CUDA kernels run on //p' "$logs/kernels.txt" | head -n 1)",
 "parts": [
  $parts],
 "benchmarks": {
  $benchmarks}}
JSON
echo "gpu_verify: $([[ $status == 0 ]] && echo "all passed" || echo "SOME FAILED"), $SECONDS s; $output"
exit $status
