#!/usr/bin/env python3
"""Compares what gpu_verify.sh measured with the targets of perf/README.md.

Usage: gpu_targets.py RESULT.json [--print]
Prints a table: of each target its limit, what was measured, their ratio, what the ratio (or the
measured number) shall be, and whether it is reached; "not measured" with the result of the part that
would have. Below it, for what is not reached, where the time went, from the profiles of the same run.
Writes the rows into RESULT.json as "targets" unless --print is given. Needs Python's own library only.
"""
import json
import os
import statistics
import sys

MEMORY_BOUND = 0.85
# Kernels whose share of the copy's bandwidth is low by nature: model ("": any), beginning of the
# name, why. They are shown, but are no part of the target.
LOW_BY_NATURE = (
    ("", "clip_", "one block"),
    ("", "sample_", "one block"),
    ("decode-7b", "", "one token hides no latency; the targets of decode count it"),
)
ATTENTION = 0.60
ATTENTION_SHAPES = ((16, 1024, 12, 12, 64), (1, 4096, 32, 32, 128), (1, 4096, 32, 8, 128))
OPS_SHOWN = 5
STORED = ',\n "targets": [\n  '


def row(target, goal, part, **found):
    """found: limit, measured, ratio, unit, reached; none of them when there is no number."""
    return {"target": target, "goal": goal, "part": part, "limit": None, "measured": None,
            "ratio": None, "unit": "", "profile": None, "reached": "not measured", **found}


def yes(reached):
    return "yes" if reached else "no"


def step_rows(benchmarks, kind, name):
    rows = benchmarks.get("steps-bench", {}).get("rows", [])
    return next((r for r in rows if r.get(kind) == name and None not in r.values()), None)


def speed(benchmarks, model, least):
    """Tokens per second; the limit is what the measured rate of products would give."""
    target, goal = f"{model} step", f">= {least} tok/s"
    r = step_rows(benchmarks, "train", model)
    if r is None:
        return row(target, goal, "steps-bench")
    ratio = r["model_flop_s"] / r["measured_peak_flop_s"]
    return row(target, goal, "steps-bench", limit=r["tokens_per_s"] / ratio,
               measured=r["tokens_per_s"], ratio=ratio, unit="tok/s", profile=f"train {model}",
               reached=yes(r["tokens_per_s"] >= least))


def mfu(benchmarks, model, least):
    """Of the dense peak of the data sheet."""
    target, goal = f"{model} shape, MFU", f">= {least}"
    r = step_rows(benchmarks, "train", model)
    if r is None or r.get("mfu", 0) == 0:
        return row(target, goal, "steps-bench")
    return row(target, goal, "steps-bench", limit=r["model_flop_s"] / r["mfu"] * 1e-12,
               measured=r["model_flop_s"] * 1e-12, ratio=r["mfu"], unit="Tflop/s",
               profile=f"train {model}", reached=yes(r["mfu"] >= least))


def beside_pytorch(benchmarks, least):
    """Medians of the turns."""
    target, goal = "gpt2-124m beside PyTorch", f">= {least}"
    theirs = [benchmarks[part]["tokens_per_s"] for part in ("pytorch-1", "pytorch-2")
              if part in benchmarks]
    ours = [r["tokens_per_s"] for part in ("ours-1", "ours-2")
            for r in benchmarks.get(part, {}).get("rows", []) if "train" in r]
    if not ours or not theirs:
        return row(target, goal, "pytorch-1" if ours else "ours-1")
    limit, measured = statistics.median(theirs), statistics.median(ours)
    return row(target, goal, "pytorch-1", limit=limit, measured=measured, ratio=measured / limit,
               unit="tok/s", profile="train gpt2-124m", reached=yes(measured >= least * limit))


def kernels(benchmarks):
    """Those with all their numbers: one that was not finite is null."""
    found = benchmarks.get("kernels-bench", {}).get("kernels", [])
    return [k for k in found if None not in k.values()]


def low_by_nature(k):
    """Why, or None."""
    return next((why for model, begin, why in LOW_BY_NATURE
                 if model in ("", k["model"]) and k["kernel"].startswith(begin)), None)


def kernel_row(k, goal, reached):
    gb_s = k["bytes"] / k["us"] * 1e-3
    return row(f"  {k['model']} {k['kernel']}", goal, "kernels-bench", limit=gb_s / k["share"],
               measured=gb_s, ratio=k["share"], unit="GB/s", reached=reached)


def memory_bound(benchmarks):
    """The worst of the kernels; those below the target, or low by nature, are rows of their own."""
    target, goal = "memory-bound kernels", f">= {MEMORY_BOUND} each"
    moving = [k for k in kernels(benchmarks) if k["limit"] == "bytes"]
    bound = [k for k in moving if low_by_nature(k) is None]
    if not bound:
        return [row(target, goal, "kernels-bench")]
    good = [k for k in bound if k["share"] >= MEMORY_BOUND]
    rows = [row(target, goal, "kernels-bench", limit=len(bound), measured=len(good),
                ratio=min(k["share"] for k in bound), unit="kernels",
                reached=yes(len(good) == len(bound)))]
    rows += [kernel_row(k, f">= {MEMORY_BOUND}", "no") for k in bound
             if k["share"] < MEMORY_BOUND]
    rows += [kernel_row(k, "none", f"low by nature: {low_by_nature(k)}") for k in moving
             if low_by_nature(k) is not None]
    return rows


def attention(benchmarks):
    """Beside the fastest library kernel of PyTorch, by time."""
    rows = []
    libraries = benchmarks.get("pytorch-attention", {}).get("attention", [])
    for shape in ATTENTION_SHAPES:
        for op, key in (("attention", "forward_us"), ("attention_backward", "backward_us")):
            name = f"{op}_{'_'.join(map(str, shape))}_"
            ours = [k["us"] for k in kernels(benchmarks) if k["kernel"].startswith(name)]
            theirs = [r[key] for r in libraries if tuple(r["shape"]) == shape and key in r]
            target, goal = name.rstrip("_"), f">= {ATTENTION}"
            if not ours or not theirs:
                rows.append(row(target, goal, "pytorch-attention" if ours else "kernels-bench"))
                continue
            ratio = min(theirs) / ours[0]
            rows.append(row(target, goal, "pytorch-attention", limit=min(theirs), measured=ours[0],
                            ratio=ratio, unit="us", reached=yes(ratio >= ATTENTION)))
    return rows


def decode(benchmarks, model, least):
    target, goal = f"decode {model}", f">= {least}"
    r = step_rows(benchmarks, "decode", model)
    if r is None:
        return row(target, goal, "steps-bench")
    return row(target, goal, "steps-bench", limit=r["tokens_per_s"] / r["share"],
               measured=r["tokens_per_s"], ratio=r["share"], unit="tok/s",
               profile=f"decode {model}", reached=yes(r["share"] >= least))


def targets(result):
    found = result["benchmarks"]
    rows = [speed(found, "gpt2-124m", 560000), beside_pytorch(found, 1.15),
            speed(found, "gpt2-1558m", 56000), mfu(found, "llama2-7b", 0.62),
            decode(found, "llama-1b", 0.80), decode(found, "llama2-7b", 0.80),
            *attention(found), *memory_bound(found)]
    parts = {p["part"]: p["result"] for p in result["parts"]}
    for r in rows:
        if r["reached"] == "not measured":
            r["part_result"] = parts.get(r["part"], "not chosen")
    return rows


def number(x):
    return "-" if x is None else f"{x:.4g}" if abs(x) < 100 else f"{x:,.0f}"


def table(rows):
    lines = [f"{'target':<44} {'limit':>11} {'measured':>11} {'':<8} {'ratio':>6}  {'goal':<18} reached"]
    for r in rows:
        reached = r["reached"]
        if reached == "not measured":
            reached += f" ({r['part']}: {r['part_result']})"
        ratio = "-" if r["ratio"] is None else f"{r['ratio']:.3f}"
        lines.append(f"{r['target']:<44} {number(r['limit']):>11} {number(r['measured']):>11} "
                     f"{r['unit']:<8} {ratio:>6}  {r['goal']:<18} {reached}")
    return lines


def explanations(result, rows):
    """The profile of each row of steps that has not reached its target, once."""
    profiles = {p["profile"]: p for part, found in result["benchmarks"].items()
                if part.startswith("profile-") for p in found.get("profiles", [])}
    wanted = dict.fromkeys(r["profile"] for r in rows if r["reached"] == "no" and r["profile"])
    lines = []
    for name in wanted:
        if name not in profiles:
            lines.append(f"{name}: not reached, and there is no profile of it")
            continue
        p = profiles[name]
        lines.append(f"{name}: {p['measured_ms']:.3f} ms; ops {p['ops_ms']:.3f}, between them "
                     f"{p['between_ms']:+.3f}; most is lost in")
        for op in p["ops"][:OPS_SHOWN]:
            lost_ms = (op["us"] - op["least_us"]) * 1e-3
            lines.append(f"  {lost_ms:9.3f} ms  {op['share']:6.1%} of {op['limit']}  "
                         f"{op['calls']} x {op['op']}")
    return lines


def main():
    arguments = [a for a in sys.argv[1:] if a != "--print"]
    if len(arguments) != 1:
        print(__doc__, file=sys.stderr)
        return 2
    path = arguments[0]
    with open(path, encoding="utf-8") as file:
        text = file.read()
    result = json.loads(text)
    rows = targets(result)
    print("\n".join(table(rows) + explanations(result, rows)))
    if "--print" not in sys.argv:
        # A line each; what was stored before is replaced.
        head = text.split(STORED)[0] if STORED in text else text[:text.rindex("}")]
        lines = ",\n  ".join(json.dumps(r) for r in rows)
        with open(path + ".part", "w", encoding="utf-8") as file:
            file.write(head + STORED + lines + "]}\n")
        os.replace(path + ".part", path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
