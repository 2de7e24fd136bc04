#!/usr/bin/env python3
"""perf/gpu_targets.py on results made up here."""
import copy
import importlib.util
import json
import pathlib
import subprocess
import sys
import tempfile
import unittest

PROGRAM = pathlib.Path(__file__).parents[2] / "perf" / "gpu_targets.py"
spec = importlib.util.spec_from_file_location("gpu_targets", PROGRAM)
gpu_targets = importlib.util.module_from_spec(spec)
spec.loader.exec_module(gpu_targets)


def train(name, rate, mfu):
    return {"train": name, "tokens_per_s": rate, "model_flop_s": 989e12 * mfu,
            "measured_peak_flop_s": 800e12, "mfu": mfu}


def decode(name, share):
    return {"decode": name, "tokens_per_s": 1000.0 * share, "share": share}


def kernel(name, limit, share, us=10.0):
    return {"model": "m", "kernel": name, "us": us, "flops": 1.0, "bytes": 4.8e7, "limit": limit,
            "share": share}


def single(name, share, model="m"):
    return {**kernel(name, "bytes", share), "model": model}


# Everything reached, each by little.
GOOD = {
    "parts": [{"part": "steps-bench", "result": "passed"}],
    "benchmarks": {
        "steps-bench": {"rows": [
            train("gpt2-124m", 560000.0, 0.5), train("gpt2-1558m", 56000.0, 0.5),
            train("llama2-7b", 9000.0, 0.62), decode("llama-1b", 0.8), decode("llama2-7b", 0.8)]},
        "kernels-bench": {"kernels": [
            kernel("norm", "bytes", 0.85), kernel("adamw", "bytes", 0.9), kernel("mm", "flops", 0.1),
            *(kernel(f"{op}_{'_'.join(map(str, shape))}_bf16", "flops", 0.3, us)
              for shape in gpu_targets.ATTENTION_SHAPES
              for op, us in (("attention", 100.0), ("attention_backward", 200.0)))]},
        "ours-1": {"rows": [train("gpt2-124m", 115.0, 0.5)]},
        "ours-2": {"rows": [train("gpt2-124m", 347.0, 0.5)]},
        "pytorch-1": {"tokens_per_s": 100.0}, "pytorch-2": {"tokens_per_s": 300.0},
        "pytorch-attention": {"attention": [
            row for shape in gpu_targets.ATTENTION_SHAPES
            for row in ({"shape": list(shape), "backend": "flash", "error": "no"},
                        {"shape": list(shape), "backend": "cudnn", "forward_us": 60.0,
                         "backward_us": 120.0},
                        {"shape": list(shape), "backend": "slow", "forward_us": 600.0,
                         "backward_us": 1200.0})]},
    },
}


class Targets(unittest.TestCase):
    def rows(self, change=lambda found: None):
        result = copy.deepcopy(GOOD)
        change(result["benchmarks"])
        return {r["target"]: r for r in gpu_targets.targets(result)}

    def test_all_are_reached_at_their_goals(self):
        for target, r in self.rows().items():
            self.assertEqual(r["reached"], "yes", target)

    def test_numbers(self):
        rows = self.rows()
        step = rows["gpt2-124m step"]
        self.assertAlmostEqual(step["ratio"], 989 * 0.5 / 800)
        self.assertAlmostEqual(step["limit"] * step["ratio"], 560000)
        self.assertAlmostEqual(rows["llama2-7b shape, MFU"]["limit"], 989)
        beside = rows["gpt2-124m beside PyTorch"]
        self.assertEqual((beside["limit"], beside["measured"]), (200, 231))
        self.assertAlmostEqual(rows["decode llama-1b"]["limit"], 1000)
        self.assertEqual(rows["attention_16_1024_12_12_64"]["limit"], 60)
        self.assertEqual(rows["attention_backward_1_4096_32_8_128"]["measured"], 200)

    def test_each_is_missed_by_little(self):
        def worse(found):
            for r in found["steps-bench"]["rows"]:
                for key in ("tokens_per_s", "mfu", "share"):
                    if key in r:
                        r[key] *= 0.999
            for k in found["kernels-bench"]["kernels"]:
                k["us"] *= 1.001
                k["share"] *= 0.999
            for turn in ("ours-1", "ours-2"):
                found[turn]["rows"][0]["tokens_per_s"] *= 0.99
        rows = self.rows(worse)
        self.assertEqual({r["reached"] for r in rows.values()}, {"no"})
        self.assertEqual(rows["memory-bound kernels"]["measured"], 1)
        worst = rows["  m norm"]
        self.assertAlmostEqual(worst["measured"], 4.8e7 / 10.01 * 1e-3)
        self.assertAlmostEqual(worst["measured"] / worst["limit"], 0.85 * 0.999)
        self.assertNotIn("  m adamw", rows)

    def test_what_is_low_by_nature_is_shown_and_misses_nothing(self):
        rows = self.rows(lambda found: found["kernels-bench"]["kernels"].extend(
            [single("clip_4", 0.01), single("sample_1", 0.02), single("norm_1", 0.03, "decode-7b")]))
        self.assertEqual(rows["memory-bound kernels"]["reached"], "yes")
        self.assertEqual(rows["memory-bound kernels"]["limit"], 2)
        self.assertEqual(rows["  m clip_4"]["reached"], "low by nature: one block")
        self.assertAlmostEqual(rows["  m sample_1"]["ratio"], 0.02)
        self.assertIn("one token", rows["  decode-7b norm_1"]["reached"])

    def test_a_row_without_one_of_its_numbers_is_not_measured(self):
        def not_finite(found):
            found["steps-bench"]["rows"][0]["model_flop_s"] = None
            found["kernels-bench"]["kernels"][0]["share"] = None
        rows = self.rows(not_finite)
        self.assertEqual(rows["gpt2-124m step"]["reached"], "not measured")
        self.assertEqual(rows["memory-bound kernels"]["limit"], 1)

    def test_what_is_missing_is_not_measured(self):
        rows = self.rows(lambda found: found.clear())
        self.assertEqual({r["reached"] for r in rows.values()}, {"not measured"})
        self.assertEqual(rows["gpt2-124m step"]["part_result"], "passed")
        self.assertEqual(rows["gpt2-124m beside PyTorch"]["part_result"], "not chosen")
        def one_turn(found):
            del found["ours-2"], found["pytorch-2"]
        self.assertEqual(self.rows(one_turn)["gpt2-124m beside PyTorch"]["limit"], 100)
        def unknown_gpu(found):
            for r in found["steps-bench"]["rows"]:
                r["mfu"] = 0.0
        self.assertEqual(self.rows(unknown_gpu)["llama2-7b shape, MFU"]["reached"], "not measured")

    def test_a_profile_explains_what_is_not_reached(self):
        result = copy.deepcopy(GOOD)
        found = result["benchmarks"]
        found["steps-bench"]["rows"][0]["tokens_per_s"] = 1.0
        found["steps-bench"]["rows"][3]["share"] = 0.1
        found["steps-bench"]["rows"][1]["tokens_per_s"] = 1.0
        found["profile-train-1558m"] = {"profiles": [{
            "profile": "train gpt2-1558m", "measured_ms": 300.0, "ops_ms": 280.0, "between_ms": 1.5,
            "kinds": [], "ops": []}]}
        found["profile-train"] = {"profiles": [{
            "profile": "train gpt2-124m", "measured_ms": 30.0, "ops_ms": 28.0, "between_ms": 1.5,
            "kinds": [], "ops": [{"op": "matmul 2x3", "calls": 12, "us": 5000.0, "limit": "flops",
                                  "least_us": 4000.0, "share": 0.8}] * 9}]}
        lines = gpu_targets.explanations(result, gpu_targets.targets(result))
        self.assertEqual(len(lines), 1 + gpu_targets.OPS_SHOWN + 1 + 1)
        self.assertIn("1.000 ms   80.0% of flops  12 x matmul 2x3", lines[1])
        self.assertIn("train gpt2-1558m: 300.000 ms", lines[-2])
        self.assertEqual(lines[-1], "decode llama-1b: not reached, and there is no profile of it")

    def test_the_program_prints_and_stores(self):
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / "result.json"
            path.write_text(json.dumps(GOOD), encoding="utf-8")
            def run(*arguments):
                return subprocess.run([sys.executable, PROGRAM, path, *arguments], text=True,
                                      capture_output=True, check=True).stdout
            printed = run("--print")
            self.assertIn("gpt2-1558m step", printed)
            self.assertEqual(json.loads(path.read_text(encoding="utf-8")), GOOD)
            self.assertEqual(run(), printed)
            stored = json.loads(path.read_text(encoding="utf-8"))
            self.assertEqual(len(stored["targets"]), len(printed.splitlines()) - 1)
            self.assertEqual(stored["benchmarks"], GOOD["benchmarks"])
            text = path.read_text(encoding="utf-8")
            run()
            self.assertEqual(path.read_text(encoding="utf-8"), text)


if __name__ == "__main__":
    unittest.main()
