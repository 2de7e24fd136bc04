#!/usr/bin/env bash
# Opens reports in a real browser and fails unless they were drawn: a run trained here, and a log
# made up to have everything (skips, saves with their stall, broken lines, markup in names), each on
# a light and on a dark screen; a run without a step, and a log of odd values.
# Usage: check_report.sh BIN   (the folder of the programs)
# Exits 77 when chromium is not installed. KEEP=DIR keeps the pages.
set -euo pipefail
bin=$(realpath -- "${1:?usage: check_report.sh BIN}")
browser=$(command -v chromium || command -v chromium-browser || true)
if [[ -z $browser ]]; then
    echo "skipped: chromium is not installed"
    exit 77
fi
if [[ -n ${KEEP:-} ]]; then
    mkdir -p "$KEEP"
    work=$(realpath -- "$KEEP")
else
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
fi
cd "$work"
export OMP_WAIT_POLICY=passive

# ---- Pages
evil='<img src=x onerror=hacked=1>&amp;'  # as a file's name, which becomes the page's title
for i in {1..300}; do echo "the quick brown fox jumps over the lazy dog $i"; done > text.txt
"$bin/plumb-data" text.txt --out data > /dev/null
cat > "$evil.toml" <<'TOML'
[model]
model_type = "gpt2"
vocab_size = 256
hidden_size = 32
num_hidden_layers = 1
num_attention_heads = 2
max_position_embeddings = 16
[batch]
micro_batch = 2
global_batch = 4
[train]
steps = 40
eval_every = 10
[data]
train = "data/train.bin"
valid = "data/valid.bin"
[checkpoint]
every = 20
[run]
threads = 1
TOML
rm -rf trained made started odd
"$bin/plumb-train" "$evil.toml" --checkpoint.dir=trained > train.txt
"$bin/plumb-train" report trained > report.txt

mkdir made
{
    # The start of the real run, with a setting that no checked configuration would have.
    head -n 1 trained/log.jsonl | sed 's|"settings":"|&model.x = <script>hacked=1</script>\\n|'
    awk 'BEGIN {
        for (step = 1; step <= 1500; ++step) {
            skipped += step == 700 || step == 701
            norm = step == 700 || step == 701 ? "null" : 1 + 100 / step
            printf "{\"step\":%d,\"tokens\":%d,\"loss\":%.6g,\"grad_norm\":%s,\"lr\":%g," \
                "\"step_ms\":5,\"tokens_per_s\":%d,\"mfu\":0.5,\"skipped\":%d," \
                "\"loss_scale\":%d}\n", step, step * 64, 2 + 3 * exp(-step / 200) + step % 3 / 10,
                norm, 1e-3 * (1 - step / 1600), 20000 + step % 7 * 100, skipped,
                step < 700 ? 65536 : 16384
            if (step % 100 == 0) printf "{\"step\":%d,\"valid_loss\":2.5}\n", step
            if (step % 500 == 0)
                printf "{\"step\":%d,\"state_digest\":\"<b>%032d\",\"seconds\":0.25," \
                    "\"bytes\":1048576,\"stall_ms\":12.5,\"waited_ms\":0,\"waited\":0}\n", step, step
        }
        print "no object"
        print "{\"step\":1500,\"peak_bytes\":5000000,\"mapped_file_bytes\":1}"
        printf "{\"step\":15"
    }'
} > made/log.jsonl
"$bin/plumb-train" report made --output=made.html > report.txt

# A run that has just started, and a log whose values are not what they should be.
mkdir started odd
head -n 1 trained/log.jsonl > started/log.jsonl
cat > odd/log.jsonl <<'JSONL'
{"step":0,"time":1e300,"plan":{"ranks":[{"arenas":{"x":"y","io":5},"total_bytes":5,"phases":[7,null]}],"device":3},"settings":7}
{"step":1,"tokens":1,"loss":null,"grad_norm":null,"lr":0,"tokens_per_s":-1,"mfu":1e308,"skipped":1}
{"step":1,"state_digest":[],"bytes":"many","seconds":null,"stall_ms":{},"waited_ms":null}
JSONL
"$bin/plumb-train" report started > report.txt
"$bin/plumb-train" report odd > report.txt

# ---- What the browser makes of them
# Goes first: whatever fails, is refused or is written to the console as an error.
read -r -d '' listen <<'JS' || true
<script>
var problems = [];
addEventListener("error", (event) => problems.push(String(event.message)));
addEventListener("securitypolicyviolation",
                 (event) => problems.push("blocked " + event.blockedURI));
console.error = console.warn = (...all) => problems.push(all.join(" "));
</script>
JS
# Goes last: counts what was drawn, points into the loss chart, presses its button, and leaves what
# it found as lines of text.
read -r -d '' probe <<'JS' || true
<script>
const found = [];
const all = (css, from = document) => [...from.querySelectorAll(css)];
const vertices = (path) => path.getAttribute("d").split("L").length;
const finite = (path) => !/NaN|Infinity|undefined/.test(path.getAttribute("d"));
found.push("title: " + all("h1")[0].textContent);
found.push("tiles: " + all(".tile b").slice(0, 2).map((b) => b.textContent).join(" | "));
for (const svg of all("svg")) {
    const width = svg.getBoundingClientRect().width, sizes = all(".curve", svg).map(vertices);
    found.push(svg.getAttribute("aria-label") + ": curves " + sizes.join("+") + ", bands " +
               all(".band", svg).length + ", saves " + all(".save", svg).length + ", skips " +
               all(".skip", svg).length + (all(".curve", svg).every(finite) ? "" : ", NOT FINITE") +
               (width > 200 ? "" : ", NARROW"));
}
for (const bars of all("svg:has(rect)")) {
    const longest = Math.max(...all("rect", bars).map((r) => r.getBoundingClientRect().right));
    found.push("bars inside: " + (longest < bars.getBoundingClientRect().right && longest > 300));
}
for (const tip of all(".tip").slice(0, 1)) {
    const svg = all("svg")[0], area = svg.getBoundingClientRect();
    const at = {clientX: area.right - 10, clientY: area.top};
    svg.dispatchEvent(new PointerEvent("pointermove", at));
    found.push("pointed: " + tip.textContent.replace(/\n/g, " | "));
}
for (const button of all("button").slice(0, 1)) {
    const before = all(".curve")[0].getAttribute("d");
    button.click();
    found.push("log scale: " + (all(".curve")[0].getAttribute("d") !== before));
}
found.push("rows: " + all("tbody tr").length + ", columns " + all("th").length);
const steps = all(".settings div").filter((div) => div.firstChild.textContent === "steps");
found.push("setting: " + steps.map((div) => div.textContent).join());
found.push("note: " + all(".note").map((note) => note.textContent).join());
found.push("markup: " + (typeof hacked) + ", images " + all("img").length);
found.push("paper: " + getComputedStyle(document.body).backgroundColor);
found.push("ink: " + getComputedStyle(document.body).color);
found.push("problems: " + problems.join("; "));
document.body.replaceChildren(Object.assign(document.createElement("pre"),
                                            {textContent: "PROBE\n" + found.join("\n") + "\nEND"}));
</script>
JS

# probe PAGE SCHEME: prints the lines found. A copy of the page carries the probe.
probe() {
    local page=$1 scheme=$2 copy=probe.html text
    text=$(< "$page")
    text=${text/<head>/<head>$listen}
    printf '%s\n' "${text%</body>*}$probe</body></html>" > "$copy"
    # The scheme is Blink's preferredColorScheme: 0 dark, 1 light.
    timeout 60 "$browser" --headless --no-sandbox --disable-gpu --disable-dev-shm-usage \
        --user-data-dir="$work/profile" --window-size=1200,900 --virtual-time-budget=2000 \
        "--blink-settings=preferredColorScheme=$scheme" --dump-dom \
        "file://$work/$copy" 2> browser.txt |
        sed -n '/PROBE$/,/^END/p' | sed '1d;$d; s/&lt;/</g; s/&gt;/>/g; s/&amp;/\&/g'
}

failed=0
# expect NAME PAGE SCHEME EXPECTED
expect() {
    if diff <(printf '%s\n' "$4") <(probe "$2" "$3") > difference.txt; then
        echo "$1: as expected"
    else
        echo "error: $1: expected (<) and found (>):" >&2
        cat difference.txt >&2
        grep -v dbus browser.txt >&2 || true
        failed=1
    fi
}
colours=("paper: rgb(18, 22, 28)
ink: rgb(230, 234, 240)" "paper: rgb(245, 246, 248)
ink: rgb(28, 36, 48)")
# last KEY: the last number of that key in the log of the trained run.
last() { sed -n "s/.*\"$1\":\([0-9.e+-]*\).*/\1/p" trained/log.jsonl | tail -n 1; }
loss=$(last loss | awk '{ print sprintf("%.5g", $1) + 0 }')
valid=$(last valid_loss | awk '{ print sprintf("%.5g", $1) + 0 }')
size=$(last bytes | awk '{ k = $1 / 1024; printf "%.*f KiB", k < 10 ? 2 : k < 100 ? 1 : 0, k }')
stall=$(last stall_ms | awk '{ print sprintf("%.3g", $1) + 0 }')
for scheme in 0 1; do
    screen=$([[ $scheme == 1 ]] && echo light || echo dark)
    expect "a trained run, $screen" trained/report.html "$scheme" "title: $evil.toml
tiles: 40 | 2560
Loss: curves 40+4, bands 0, saves 2, skips 0
Gradient norm: curves 40, bands 0, saves 0, skips 0
Learning rate: curves 40, bands 0, saves 0, skips 0
Tokens per second: curves 40, bands 0, saves 0, skips 0
memory by arena and phase: curves , bands 0, saves 0, skips 0
bars inside: true
pointed: step 40 | training  $loss | validation  $valid | saved after step 40  \
$size, stall $stall ms
log scale: true
rows: 2, columns 6
setting: steps40
note: 
markup: undefined, images 0
${colours[scheme]}
problems: "
    expect "a made log, $screen" made.html "$scheme" "title: $evil.toml
tiles: 1,500 | 96K
Loss: curves 500+15, bands 1, saves 3, skips 2
Gradient norm: curves 500, bands 1, saves 0, skips 0
Learning rate: curves 500, bands 1, saves 0, skips 0
Tokens per second: curves 500, bands 1, saves 0, skips 0
Loss scale: curves 500, bands 0, saves 0, skips 0
memory by arena and phase: curves , bands 0, saves 0, skips 0
bars inside: true
pointed: steps 1,498 to 1,500 | training  2.1017  (2.0017 to 2.2017) | validation  2.5 | \
saved after step 1,500  1.00 MiB, stall 12.5 ms
log scale: true
rows: 3, columns 6
setting: steps40
note: 2 of 1,522 lines of log.jsonl are broken and were passed over.
markup: undefined, images 0
${colours[scheme]}
problems: "
done
expect "a run that has just started" started/report.html 1 "title: $evil.toml
tiles: 0 | 0
memory by arena and phase: curves , bands 0, saves 0, skips 0
bars inside: true
rows: 0, columns 0
setting: steps40
note: 
markup: undefined, images 0
${colours[1]}
problems: "
expect "an odd log" odd/report.html 1 "title: odd
tiles: 1 | 1
Learning rate: curves 1, bands 0, saves 0, skips 0
Tokens per second: curves 1, bands 0, saves 0, skips 0
memory by arena and phase: curves , bands 0, saves 0, skips 0
bars inside: true
pointed: step 1 | lr  0
rows: 1, columns 6
setting: 
note: 
markup: undefined, images 0
${colours[1]}
problems: "
exit $failed
