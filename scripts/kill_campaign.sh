#!/usr/bin/env bash
# Kills a training with SIGKILL at random moments and lets it resume, COUNT times. Every resume must
# stand at a step that was reported or later, with the state digest that an uninterrupted run has at
# that step, and every run that comes to its end must end with that run's digest.
# Usage: kill_campaign.sh [COUNT [SEED]]   (default 200 kills, seed 1)
set -euo pipefail
cd "$(dirname "$0")/.."
count=${1:-200}
seed=${2:-1}
for number in "$count" "$seed"; do
    if [[ ! $number =~ ^[1-9][0-9]{0,8}$ ]]; then
        echo "error: kill_campaign.sh: '$number' is not a whole number, 1 or more" >&2
        exit 2
    fi
done
steps=400  # of one run; a save every 4 of them, so that most moments lie in a save
every=4
scripts/build.sh release plumb-train plumb-data
train=$PWD/build/release/bin/plumb-train
data=$PWD/build/release/bin/plumb-data

folder=$(mktemp -d)
pid=
stop() {
    if [[ -n $pid ]]; then kill -KILL "$pid" 2> /dev/null || true; fi
    rm -rf "$folder"
}
trap stop EXIT
cd "$folder"
for ((line = 0; line < 400; ++line)); do echo "the quick brown fox jumps over the lazy dog."; done \
    > text.txt
"$data" text.txt --out data > /dev/null
cat > run.toml <<TOML
[model]
model_type = "gpt2"
vocab_size = 256
hidden_size = 16
num_hidden_layers = 2
num_attention_heads = 2
max_position_embeddings = 16

[batch]
micro_batch = 2
global_batch = 4

[train]
steps = $steps
eval_every = 0
log_every = $steps

[data]
train = "data/train.bin"

[checkpoint]
every = $every
keep = 2
resume = "auto"

[run]
threads = 1
TOML

fail() {
    echo "error: kill $kills: $1; what the program said:" >&2
    tail -n 20 out.txt >&2
    exit 1
}
now_ms() { date +%s%3N; }
export OMP_WAIT_POLICY=passive

# What an uninterrupted run has: digest[step], and the time that a save and its steps take.
kills=0
begin=$(now_ms)
"$train" run.toml --checkpoint.dir=whole > out.txt 2>&1 || fail "the uninterrupted run failed"
save_ms=$((($(now_ms) - begin) * every / steps + 1))
declare -A digest
while read -r step value; do digest[$step]=$value; done < <(
    sed -n 's/^{"step":\([0-9]*\),"state_digest":"\([0-9a-f]*\)".*/\1 \2/p' whole/log.jsonl)
if [[ ${#digest[@]} != $((steps / every)) || -z ${digest[$steps]:-} ]]; then
    fail "the log of the uninterrupted run has ${#digest[@]} digests, not $((steps / every))"
fi
echo "uninterrupted: $steps steps, ${#digest[@]} saves of $save_ms ms, digest ${digest[$steps]}"

RANDOM=$seed
resumes=0 at_start=0 unfinished=0 complete=0 reported=0

# Reads what a process said that has ended: where it resumed, and the last save it reported.
read_output() {
    local step value last
    if grep -q '^note: passed over ' out.txt; then fail "a checkpoint was passed over"; fi
    if read -r step value < <(
        sed -n 's/^resumed at step \([0-9]*\) from .*, digest \([0-9a-f]*\)$/\1 \2/p' out.txt); then
        [[ $value == "${digest[$step]:-}" ]] ||
            fail "resumed at step $step with digest $value, not ${digest[$step]:-any that was saved}"
        ((step >= reported)) || fail "resumed at step $step after step $reported was reported"
        resumes=$((resumes + 1))
    elif ((reported > 0)) && grep -q '^new run' out.txt; then
        fail "began anew after step $reported was reported"
    fi
    last=$(sed -n 's/^saved step \([0-9]*\): .*/\1/p' out.txt | tail -n 1)
    reported=${last:-$reported}
}

# A run that has come to its end: compares, and begins another.
finish() {
    local last
    last=$(sed -n 's/^{"step":'"$steps"',"state_digest":"\([0-9a-f]*\)".*/\1/p' killed/log.jsonl |
        tail -n 1)
    [[ $last == "${digest[$steps]}" ]] ||
        fail "the run ended with digest ${last:-none}, the uninterrupted one with ${digest[$steps]}"
    [[ $(find killed -mindepth 1 -maxdepth 1 -name '*step-*' | wc -l) == 2 ]] ||
        fail "the run has left other than two checkpoints: $(ls killed)"
    complete=$((complete + 1))
    reported=0
    rm -rf killed
}

while ((kills < count)); do
    : > out.txt
    "$train" run.toml --checkpoint.dir=killed > out.txt 2>&1 &
    pid=$!
    # One in four dies while it starts, one after it has resumed, two when it is busy saving.
    case $((RANDOM % 4)) in
        0) awaited='' wait_ms=$((RANDOM % (save_ms / 2 + 1))) ;;
        1) awaited='^(new run|resumed at)' wait_ms=$((RANDOM % (4 * save_ms))) ;;
        *) awaited='^saved step' wait_ms=$((RANDOM % (4 * save_ms))) ;;
    esac
    while ! grep -q -E "$awaited" out.txt && [[ -n $awaited ]] && kill -0 "$pid" 2> /dev/null; do
        sleep 0.01
    done
    sleep "$((wait_ms / 1000)).$(printf %03d $((wait_ms % 1000)))"
    kill -KILL "$pid" 2> /dev/null || true
    status=0
    wait "$pid" 2> /dev/null || status=$?
    pid=
    if ((status != 0 && status != 137)); then fail "the program ended by itself with $status"; fi
    read_output
    if ((status == 0)); then
        finish
        continue
    fi
    kills=$((kills + 1))
    grep -q -E '^(new run|resumed at)' out.txt || at_start=$((at_start + 1))
    for step in killed/step-*; do
        if [[ -d $step && ! -e $step/MANIFEST ]]; then
            unfinished=$((unfinished + 1))
            break
        fi
    done
    if ((kills % 10 == 0)); then
        echo "$kills kills: $resumes resumes, $unfinished unfinished saves, $complete runs complete"
    fi
done
: > out.txt
"$train" run.toml --checkpoint.dir=killed > out.txt 2>&1 || fail "the last run failed"
read_output
finish
echo "kill campaign: $kills kills (seed $seed), $at_start of them during a start;" \
    "$unfinished left an unfinished save; $resumes resumes and $complete complete runs, all with the" \
    "digests of the uninterrupted run; $((($(now_ms) - begin) / 1000)) s"
