#!/usr/bin/env bash
# The whole line in one command: install what is missing, build, plan, train a small GPT on real
# text for about two minutes on two cores, save a checkpoint, and let it write.
# TEXT=file.txt trains on that file; otherwise on the C++ standard library's headers of this
# machine's compiler. DEMO_STEPS=n sets the number of steps.
# Everything lands in demo/. An earlier run is never resumed or deleted here: it is moved aside.
set -euo pipefail
cd "$(dirname "$0")/.."

# The model and the run: all the numbers of the demo. Two minutes on two cores.
steps=${DEMO_STEPS:-2600}
hidden_size=128
layer_count=4
head_count=4
sequence_length=256  # the longest prompt (56) and new_token_count (200) must fit
micro_batch=4
global_batch=4
lr=2e-3
warmup_steps=100
new_token_count=200
temperature=0.6

fail() { echo "error: $1" >&2; exit 2; }
say() { printf '\n== %s\n' "$1"; }

[[ $steps =~ ^[1-9][0-9]{0,8}$ ]] ||
    fail "DEMO_STEPS is '$steps'; it must be a whole number, 1 or more"
text=${TEXT:-}
if [[ -n $text ]]; then
    [[ -f $text && -r $text ]] || fail "TEXT names '$text', which is not a file that can be read"
    [[ -s $text ]] || fail "TEXT names '$text', which is empty"
    text=$(realpath -- "$text")
fi
mkdir -p demo

say "Build (log: demo/build.log)"
scripts/install_deps.sh
# Shows ninja's [done/total] on one line of a terminal, or a line per tenth in a pipe.
show_progress() {
    local line tenth shown=-1
    while IFS= read -r line; do
        [[ $line =~ ^\[([0-9]+)/([0-9]+)\] ]] || continue
        tenth=$((BASH_REMATCH[1] * 10 / BASH_REMATCH[2]))
        if [[ -t 1 ]]; then
            printf '\r%s' "${BASH_REMATCH[0]}"
        elif ((tenth > shown)); then
            shown=$tenth
            echo "${BASH_REMATCH[0]}"
        fi
    done
    if [[ -t 1 ]]; then printf '\r\033[K'; fi
}
bin=build/release/bin
programs=(plumb-plan plumb-data plumb-train plumb-infer plumb-ckpt)
if ! scripts/build.sh release "${programs[@]}" 2>&1 | tee demo/build.log | show_progress; then
    tail -n 40 demo/build.log >&2
    echo "error: the build failed; the whole log is demo/build.log" >&2
    exit 1
fi
echo "The programs are in $bin"

say "Text"
if [[ -n $text ]]; then
    # The prompt is the text's own first words, without a last one that was cut.
    prompt=$(head -c 2000 -- "$text" | tr -d '\0' |
        LC_ALL=C awk 'NF { print substr($0, 1, 56); exit }' |
        sed 's/^[[:space:]]*//; s/\(.\{40,\}\)[[:space:]].*/\1/' |
        iconv -c -f utf-8 -t utf-8 || true)
    prompt=${prompt:-The}
else
    # The last path component before the search list ends is the library's version: .../c++/12.
    headers=$("${CXX:-g++}" -E -x c++ - -v < /dev/null 2>&1 > /dev/null |
        sed -n 's|^ \(/.*/c++/[^/]*\)$|\1|p' | head -n 1)
    [[ -d $headers ]] ||
        fail "no C++ headers found by ${CXX:-g++}; give a text: make demo TEXT=file.txt"
    text=demo/text.txt
    find "$headers" -type f -print0 | LC_ALL=C sort -z | xargs -0 cat -- > "$text"
    prompt="template <typename"
    echo "The C++ standard library's headers of this machine, $headers"
fi
echo "$text: $(stat -c %s -- "$text") bytes"

say "Tokens"
"$bin/plumb-data" "$text" --out demo/data

if [[ -e demo/run ]]; then
    n=1
    while [[ -e demo/run.$n ]]; do n=$((n + 1)); done
    mv demo/run "demo/run.$n"
    echo "demo/run of an earlier demo was moved to demo/run.$n (delete it when you like)"
fi
cat > demo/run.toml <<TOML
# Written by scripts/demo.sh. Paths start at the folder where the program is started.
[model]
model_type = "gpt2"
vocab_size = 256             # a token is a byte
hidden_size = $hidden_size
num_hidden_layers = $layer_count
num_attention_heads = $head_count
max_position_embeddings = $sequence_length

[batch]
sequence_length = $sequence_length
micro_batch = $micro_batch              # sequences
global_batch = $global_batch             # sequences

[train]
steps = $steps
seed = 1
lr = $lr
min_lr = 1e-4
warmup_steps = $((warmup_steps < steps ? warmup_steps : steps - 1))
lr_schedule = "cosine"
eval_every = $(((steps + 4) / 5))
eval_batches = 16
log_every = $(((steps + 49) / 50))

[data]
train = "demo/data/train.bin"
valid = "demo/data/valid.bin"

[checkpoint]
dir = "demo/run"
every = $(((steps + 1) / 2))
keep = 2
resume = "auto"

[run]
device = "cpu"
threads = 0                  # all that this process may use
TOML

say "Plan: every byte of the run, before it starts"
"$bin/plumb-plan" demo/run.toml

say "Train"
"$bin/plumb-train" demo/run.toml

generate=("$bin/plumb-infer" generate --checkpoint demo/run "--prompt=$prompt"
          --max-new-tokens "$new_token_count" --temperature "$temperature" --seed 1)
say "Write, from the checkpoint just saved"
"${generate[@]}"

cat <<TEXT


== Where everything lies
  text        $text
  tokens      demo/data/train.bin, demo/data/valid.bin
  run file    demo/run.toml
  checkpoint  demo/run
  log         demo/run/log.jsonl
  programs    $bin

Next, from this folder:
  train twice as long    $bin/plumb-train demo/run.toml --train.steps=$((steps * 2))
  let it write           $bin/plumb-infer generate --checkpoint demo/run --prompt "..." \\
                             --max-new-tokens $new_token_count
  look at the checkpoint $bin/plumb-ckpt inspect demo/run
  plan a larger model    $bin/plumb-plan gpt2-124m
  train on your text     make demo TEXT=file.txt   (this run is then moved to demo/run.N)
TEXT
