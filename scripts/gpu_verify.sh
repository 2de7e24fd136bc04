#!/usr/bin/env bash
# Verifies on this machine's GPU what the emulated one cannot show, and measures: kernel cases against
# fp64 with cuBLASLt, golden losses, graphs against single launches, checkpoints against the CPU's,
# whole trainings and generations, memory taken after the start, compute-sanitizer where it works;
# the benchmarks and where their time goes; PyTorch beside them where it is installed.
# Usage: gpu_verify.sh [--seconds N] [--only PART[,PART...]] [--build FOLDER] [--commit ID] [--smoke]
#                      [OUTPUT.json]     (default perf/results/DATE-GPU.json)
#   --seconds N  all parts together (default 530, for a call of 10 minutes)
#   --only       these parts alone; their names stand below, in the order in which they run
#   --smoke      each part at its smallest size, which shows that it runs and nothing else
# Uses build/cuda as it is (make cuda, here or on another machine of this kind) and installs nothing.
# OUTPUT is whole after every part; what the parts printed lies in a folder beside it, at the end in
# one OUTPUT-logs.tar.gz. Exits 0 when all passed, 1 when some failed, 2 when there is no GPU that
# our programs can use, no build, no such part, or less time than the musts need.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 2

# NAME SECONDS must|may. A must is certain of its seconds, and has what those before it left over. A
# may runs when all musts are done and its seconds are left; else it is "not run", which fails
# nothing. On an H200 these should take, by what the emulated GPU counts of steps, bytes, flops and
# started processes (some 2 s each: CUDA, cuBLASLt, measuring products), and guessing from there:
# kernels 40 s, nearly all of it fp64 on the host; sessions 40; training 75 (30 processes);
# inference 20; train-124m 25, of which 8 for four saves of 1.7 GB; steps-bench 40, of which 15 for
# filling 7B of weights and measuring limits; kernels-bench 40; profiles 15 and 10; memcheck 20; of
# PyTorch 70 each the first time, for compiling. Together 325 s of musts and 300 of mays before the
# profiles of the other targets.
parts=(
    "kernels 60 must"
    "sessions 60 must"
    "training 90 must"
    "inference 30 must"
    "train-124m 60 must"
    "steps-bench 60 must"
    "kernels-bench 60 must"
    "profile-train 30 must"
    "profile-decode 20 must"
    "memcheck 30 must"
    # In turns, so that both see the same machine.
    "ours-1 20 may"
    "pytorch-1 80 may"
    "ours-2 20 may"
    "pytorch-2 60 may"
    "pytorch-attention 30 may"
    # Where the time of the other targets goes.
    "profile-train-1558m 40 may"
    "profile-train-7b 40 may"
    "profile-decode-7b 40 may"
    "racecheck 40 may"
    "synccheck 40 may"
    "memcheck-all 60 may"
    "pytorch-1558m 120 may"
    "pytorch-7b 90 may"
)
start_s=5 # before the first part

fail() {
    echo "error: gpu_verify.sh: $1" >&2
    exit 2
}
build=build/cuda limit_s=530 only="" smoke="" output="" commit=""
while (($# > 0)); do
    case $1 in
        --seconds | --only | --build | --commit)
            (($# > 1)) || fail "$1 needs a value"
            case $1 in
                --seconds) limit_s=$2 ;;
                --only) only=$2 ;;
                --build) build=$2 ;;
                --commit) commit=$2 ;;
            esac
            shift
            ;;
        --smoke) smoke=1 ;;
        -*) fail "unknown option $1" ;;
        *) output=$1 ;;
    esac
    shift
done
for name in ${only//,/ }; do
    printf '%s\n' "${parts[@]}" | grep -q "^$name " || fail "no part $name"
done
chosen=()
for part in "${parts[@]}"; do
    [[ -z $only || ,$only, == *,"${part%% *}",* ]] && chosen+=("$part")
done

[[ $limit_s =~ ^[0-9]+$ ]] || fail "--seconds $limit_s: not a number of seconds"
# Seconds that the musts behind the first $1 parts are certain of.
reserved_s() {
    local sum=0 part seconds kind
    for part in "${chosen[@]:$1}"; do
        read -r part seconds kind <<< "$part"
        [[ $kind == must ]] && ((sum += seconds))
    done
    echo "$sum"
}
musts_s=$(($(reserved_s 0) + start_s))
((musts_s <= limit_s)) || fail "the parts that must run need $musts_s s, more than --seconds $limit_s"

for program in tests/{kernels,runtime_engine,trainer,infer}_tests bin/plumb-{train,plan,data,infer} \
    perf/{step_bench,gpu_kernels_bench}; do
    [[ -x $build/$program ]] || fail "no $build/$program; build it with: make cuda"
done
# CUDA's device 0 need not be nvidia-smi's, which counts by the bus.
export CUDA_DEVICE_ORDER=PCI_BUS_ID
device=${CUDA_VISIBLE_DEVICES-0}
device=${device%%,*}
export CUDA_VISIBLE_DEVICES=$device
smi() {
    nvidia-smi --query-gpu="$1" --format=csv,noheader,nounits -i "$device"
}
command -v nvidia-smi > /dev/null && gpu=$(smi name,driver_version,memory.total) ||
    fail "nvidia-smi finds no NVIDIA GPU $device here"
IFS=, read -r name driver memory <<< "$gpu"
capability=$(smi compute_cap | tr -d .)
commit=${commit:-$(git describe --always --dirty --abbrev=12 2> /dev/null || echo unknown)}
output=${output:-perf/results/$(date -u +%Y-%m-%d)-${name// /-}${only:+-${only//,/+}}.json}
logs=${output%.json}-logs
mkdir -p "$logs" || exit 2
export OMP_WAIT_POLICY=passive
# Tests leave out a GPU that they cannot use: say here why it cannot be. LD_LIBRARY_PATH comes before
# where the system has cuBLASLt, so Python's is named only where the system has none.
opened() {
    "$build/perf/gpu_kernels_bench" --smoke --filter clip > "$logs/start.txt" 2>&1
}
opened_with_pythons() {
    grep -q cuBLASLt "$logs/start.txt" || return 1
    packages=$(scripts/cublaslt_path.sh)
    [[ -n $packages ]] || return 1
    export LD_LIBRARY_PATH=${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}$packages
    opened
}
opened || opened_with_pythons || fail "our programs cannot use $gpu: $(tail -n 3 "$logs/start.txt")"
echo "gpu_verify: $gpu MiB; commit $commit"

# tests PROGRAM FILTER [FILTER OF A SMOKE RUN]
tests() {
    "$build/tests/$1" --gtest_filter="$([[ -n $smoke ]] && echo "${3:-$2}" || echo "$2")"
}
part_kernels() {
    tests kernels_tests \
        '*/sm*:*_sm*:Kernels/*SmallCases*:Gpu*:*Gpu*:Tf32*:Gemm*:Product*:UsableGpu*' \
        "$few_kernels"
}
part_sessions() {
    tests runtime_engine_tests '*GpuSession*:Device*:ProductTable*:Numerics*' \
        'Device*:ProductTable*:Numerics*'
}
part_training() {
    tests trainer_tests 'GpuTrain*' 'GpuTrain.AStopRequest*'
}
part_inference() {
    tests infer_tests 'GpuInfer*'
}

# The memory of the GPU by the run's last lines against its plan: nothing taken after the start, and
# what CUDA itself took no more than its row. LINES are what a run printed, OTHERS bytes that other
# processes held before.
check_memory() {
    local lines=$1 others=$2 line held planned before after arenas taken own row
    line=$(grep '^memory of .* were taken after the start$' "$lines") || {
        echo "FAILED: the run does not say what memory it held"
        return 1
    }
    read -r held planned before after <<< "$(sed -E \
        's/^memory of .*: ([0-9]+) bytes .* against ([0-9]+) planned .*; ([0-9]+) bytes .*, (-?[0-9]+) were taken after the start$/\1 \2 \3 \4/' <<< "$line")"
    arenas=$(("$("$build/bin/plumb-plan" "${run[@]}" "--run.device=cuda-sm$capability" --json |
        sed -n '/"arenas": {/,/}/{p;/}/q}' | grep -v staging | grep -o '[0-9]*' | paste -sd+)"))
    taken=$((held - others)) own=$((held - others - arenas)) row=$((planned - arenas))
    echo "{\"planned_bytes\": $planned, \"taken_bytes\": $taken, \"cuda_row_bytes\": $row," \
        "\"cuda_taken_bytes\": $own, \"before_arenas_bytes\": $((before - others))," \
        "\"after_start_bytes\": $after, \"others_bytes\": $others}" > "$logs/train-124m.json"
    echo "GPU memory: $taken bytes taken of $planned planned; by CUDA itself $own of a row of $row;" \
        "after the start $after"
    local rc=0
    ((after == 0)) || { echo "FAILED: memory was taken after the start"; rc=1; }
    ((own >= 0)) || { echo "FAILED: less was held than the arenas"; rc=1; }
    ((own <= row)) || { echo "FAILED: CUDA took more than its row in the plan"; rc=1; }
    return "$rc"
}
# same WHAT A B: two texts, neither of them empty.
same() {
    if [[ -n $2 && $2 == "$3" ]]; then
        echo "$1: the same"
    else
        echo "FAILED: $1: \"$2\" and \"$3\""
        return 1
    fi
}
digests() { # digests NAME: of the JSON at the input
    grep -o "\"$1\": *\"[^\"]*\"" | tr -d ' '
}
# GPT-2 124M as a user trains it: its memory beside the plan, the plan that a machine without a GPU
# makes, graph against single launches.
part_train_124m() {
    folder=$(mktemp -d)
    trap 'rm -rf "$folder"' EXIT
    head -c 4000000 < <(while cat README.md DESIGN.md; do :; done) > "$folder/text.txt"
    "$build/bin/plumb-data" "$folder/text.txt" --out "$folder/data" || return 1
    run=(gpt2-124m --batch.sequence_length=1024 --batch.micro_batch=8 --batch.global_batch=16
        --train.steps=30 --checkpoint.every=15)
    [[ -z $smoke ]] || run=(tiny --model.num_hidden_layers=1 --batch.sequence_length=16
        --batch.micro_batch=1 --batch.global_batch=2 --train.steps=4 --checkpoint.every=2)
    run+=(--train.dtype=bf16 --train.warmup_steps=2 --train.eval_every=0 --train.sample_tokens=0
        "--data.train=$folder/data/train.bin")
    local others rc=0
    others=$(smi memory.used)
    if [[ $others =~ ^[0-9]+$ ]]; then
        others=$((others * 1048576))
    else
        echo "note: nvidia-smi says \"$others\" of the memory in use; taken as 0 before the run"
        others=0
    fi
    "$build/bin/plumb-train" "${run[@]}" --run.device=cuda "--checkpoint.dir=$folder/graph" |
        tee "$folder/graph.txt" || return 1
    cp "$folder/graph"/gemm_algorithms-*.txt "$logs/"
    check_memory "$folder/graph.txt" "$others" || rc=1
    same "plans of plumb-plan and the run" \
        "$("$build/bin/plumb-plan" "${run[@]}" "--run.device=cuda-sm$capability" --json |
            digests digest)" "$(head -n 1 "$folder/graph/log.jsonl" | digests digest)" || rc=1
    # The same algorithms, kernel by kernel: the same digests.
    mkdir "$folder/eager"
    cp "$folder/graph"/gemm_algorithms-*.txt "$folder/eager/"
    "$build/bin/plumb-train" "${run[@]}" --run.device=cuda "--checkpoint.dir=$folder/eager" \
        --run.graph=false || rc=1
    same "states of graph and single launches" "$(digests state_digest < "$folder/graph/log.jsonl")" \
        "$(digests state_digest < "$folder/eager/log.jsonl")" || rc=1
    return "$rc"
}

# Benchmarks leave $logs/PART.json, also when their time was up.
steps() {
    local json=$logs/$1.json
    shift
    "$build/perf/step_bench" --gpu ${smoke:+--smoke} --json "$json" "$@"
}
# The profiles of rows of steps-bench; the rows themselves are in that.
profile() {
    "$build/perf/step_bench" --gpu ${smoke:+--smoke} --filter "$2" --profile "$logs/$1.json"
}
part_steps_bench() {
    steps steps-bench --steps 8
}
part_kernels_bench() {
    "$build/perf/gpu_kernels_bench" ${smoke:+--smoke --filter norm_} --json "$logs/kernels-bench.json"
}
part_profile_train() {
    profile profile-train "train $([[ -n $smoke ]] || echo gpt2-124m)"
}
part_profile_decode() {
    profile profile-decode "decode $([[ -n $smoke ]] || echo llama-1b)"
}
part_profile_train_1558m() {
    profile profile-train-1558m "train $([[ -n $smoke ]] || echo gpt2-1558m)"
}
part_profile_train_7b() {
    profile profile-train-7b "train $([[ -n $smoke ]] || echo llama2-7b)"
}
part_profile_decode_7b() {
    profile profile-decode-7b "decode $([[ -n $smoke ]] || echo llama2-7b)"
}
ours() {
    if [[ -n $smoke ]]; then
        steps "$1" --filter train
    else
        steps "$1" --preset gpt2-124m --batch 16 --length 1024 --steps 20
    fi
}
part_ours_1() { ours ours-1; }
part_ours_2() { ours ours-2; }
# pytorch NAME ARGUMENT...: its last line is the result.
pytorch() {
    local json=$logs/$1.json rc
    shift
    perf/pytorch_gpu.py "$@" > "$json.part"
    rc=$?
    cat "$json.part"
    ((rc == 0)) && tail -n 1 "$json.part" > "$json"
    rm "$json.part"
    return "$rc"
}
# pytorch_steps NAME MODEL ARGUMENT...: as the row of steps-bench.
pytorch_steps() {
    if [[ -n $smoke ]]; then
        pytorch "$1" "$2" --batch 1 --length 64 --layers 1 --steps 2
    else
        pytorch "$@"
    fi
}
part_pytorch_1() { pytorch_steps pytorch-1 gpt2-124m --batch 16 --length 1024; }
part_pytorch_2() { pytorch_steps pytorch-2 gpt2-124m --batch 16 --length 1024; }
part_pytorch_1558m() {
    pytorch_steps pytorch-1558m gpt2-1558m --batch 16 --length 1024 --steps 8
}
part_pytorch_7b() {
    pytorch_steps pytorch-7b llama2-7b --batch 4 --length 4096 --layers 8 --steps 8
}
part_pytorch_attention() { pytorch pytorch-attention attention; }

# sanitize TOOL FILTER: kernels under compute-sanitizer; skipped where that is not installed, or does
# not work on this machine.
sanitize() {
    local printed=$logs/sanitizer.txt rc
    command -v compute-sanitizer > /dev/null || return 77
    compute-sanitizer --tool "$1" --error-exitcode 1 "$build/tests/kernels_tests" \
        --gtest_filter="$([[ -n $smoke ]] && echo "$few_kernels" || echo "$2")" 2>&1 | tee "$printed"
    rc=${PIPESTATUS[0]}
    grep -q "Device not supported" "$printed" && rc=77
    rm "$printed"
    return "$rc"
}
few_kernels='Kernels/Small*/*norm_*_1_*'
few_tiles='Kernels/Optimizer*/sm*:Kernels/AttentionTiles.*OfManyTiles/sm*:Kernels/Small*/*_1_1*'
part_memcheck() { sanitize memcheck "$few_tiles"; }
part_racecheck() { sanitize racecheck "$few_tiles"; }
part_synccheck() { sanitize synccheck "$few_tiles"; }
part_memcheck_all() { sanitize memcheck 'Kernels/*/sm*:Kernels/SmallCases*'; }

# shellcheck disable=SC2046  # names of functions
export -f $(compgen -A function)
export build logs capability device smoke few_kernels few_tiles

status=0
results=""
benchmarks=""
write_output() {
    local libraries
    libraries=$(sed -n 's/^note: CUDA kernels run on //p' "$logs/kernels.txt" 2> /dev/null | head -n 1)
    cat > "$output.part" <<JSON
{"date": "$(date -u +%Y-%m-%dT%H:%M:%SZ)", "commit": "$commit", "gpu": "$name", "driver": "${driver# }",
 "memory": "${memory# } MiB", "seconds": $SECONDS, "smoke": ${smoke:-0}, "libraries": "$libraries",
 "parts": [
  $results],
 "benchmarks": {
  $benchmarks}}
JSON
    mv "$output.part" "$output"
}
# run_part NAME SECONDS must|may LEFT: with LEFT seconds for it.
run_part() {
    local part=$1 needed_s=$2 kind=$3 left_s=$4 begin=$SECONDS rc=124 passed failed left_out result
    rm -f "$logs/$part.json"
    if [[ $kind == may ]] && ((left_s < needed_s)) || ((left_s < 1)); then
        result="not run"
        echo "not run: $left_s s are left" > "$logs/$part.txt"
    else
        [[ $kind == may ]] && left_s=$needed_s
        timeout --kill-after=5 "$left_s" bash -uo pipefail -c "part_${part//-/_}" \
            > "$logs/$part.txt" 2>&1
        rc=$?
        case $rc in
            0) result=passed ;;
            77) result=skipped ;;
            124 | 137) result="out of time" ;;
            *) result=failed ;;
        esac
    fi
    passed=$(grep -c '^\[       OK \]' "$logs/$part.txt")
    failed=$(grep -c '^\[  FAILED  \].* ms)$' "$logs/$part.txt")
    left_out=$(grep -c '^\[  SKIPPED \].* ms)$' "$logs/$part.txt")
    # A test program that ran nothing has shown nothing.
    if [[ $result == passed && $passed == 0 ]] && grep -q '^\[=====' "$logs/$part.txt"; then
        result=failed
    fi
    case $kind:$result in
        *:passed | *:skipped | may:"not run" | may:"out of time") ;;
        *) status=1 ;;
    esac
    results+="${results:+,
  }{\"part\": \"$part\", \"kind\": \"$kind\", \"result\": \"$result\", \"passed\": $passed, \"failed\": $failed, \"skipped\": $left_out, \"seconds\": $((SECONDS - begin))}"
    [[ -s $logs/$part.json ]] && benchmarks+="${benchmarks:+,
  }\"$part\": $(cat "$logs/$part.json")"
    printf 'gpu_verify: %-19s %-4s %-11s %4d passed, %d failed, %d skipped, %d s\n' \
        "$part" "$kind" "$result" "$passed" "$failed" "$left_out" "$((SECONDS - begin))"
    write_output
}

for i in "${!chosen[@]}"; do
    read -r part needed_s kind <<< "${chosen[i]}"
    run_part "$part" "$needed_s" "$kind" $((limit_s - SECONDS - $(reserved_s $((i + 1)))))
done
if command -v python3 > /dev/null; then
    python3 perf/gpu_targets.py "$output" || status=1
else
    echo "gpu_verify: no python3: the targets are not compared; perf/gpu_targets.py $output does it"
fi
tar -czf "$logs.tar.gz" -C "$(dirname "$logs")" "$(basename "$logs")" && rm -r "$logs"
echo "gpu_verify: $([[ $status == 0 ]] && echo "all passed" || echo "SOME FAILED"), $SECONDS s; $output"
exit $status
