#!/usr/bin/env python3
"""Golden numbers of tiny models, from PyTorch and HF transformers, for Plumb's tests.

    pip install torch transformers numpy
    python3 scripts/make_goldens.py             # writes tests/golden/*.json
    python3 scripts/make_goldens.py --hf-check  # writes nothing; compares with the committed files

Every model is computed in float64, so the golden is the truth and not one more rounding of it;
HF's Llama rounds to float32 inside RMSNorm and RoPE, so these two are replaced by float64 twins
(class Exact*), and the stock float32 model is compared with the result on every run.

Weights and tokens are not stored: both sides make them with the integer generator below, whose
C++ twin is tests/golden/golden_model.h. All values are dyadic and exact in float32:
    key     = fnv1a64(name)
    bits(i) = splitmix64(key + (i + 1) * 0x9E3779B97F4A7C15)         (mod 2^64)
    u(i)    = ((bits(i) >> 48) - 32768) / 32768                      in [-1, 1)
    matrix (embeddings too) = 5/32 * u    *.gain = 1 + u/8    *.bias = u/32
where i is the row-major index in the canonical shape ([out, in] for matrices). Token `index` of
step s, from the key of the name "tokens": h = bits(s * 2^20 + index), a = (h mod 2^32) mod V,
b = (h >> 32) mod V, id = a * b div V: small ids are frequent, so there is something to learn.
Sequence q of a step takes T + 1 consecutive indices from q * (T + 1): T inputs, T targets.

JSON: config (as a HF config.json), parameters (canonical name, shape, samples [index, value],
exact initial sum and sum of squares, norm of the first step's gradient before clipping, final
sum and sum of squares), forward (tokens, logits row by
row) and training (settings; loss, grad_norm before clipping and lr of each step).
sampling.json: what HF's logits processors leave of logits 32 * u * 5/32 of the name "sampling", in
float64: [token, probability] of each that stays, for each setting.
Key biases have no final sums, and GPT-2's no gradient norm: adding a constant to all keys does
not change a softmax, so their gradient is zero (with RoPE: tiny), and AdamW, which divides by its
size, amplifies whatever rounding left there. The loss does not notice.
"""
import argparse
import json
import math
import pathlib
import sys

import numpy as np
import torch
import transformers
from transformers.models.llama import modeling_llama

GOLDEN = pathlib.Path(__file__).resolve().parent.parent / "tests" / "golden"
MODELS = {
    "gpt2": dict(model_type="gpt2", vocab_size=97, n_embd=48, n_layer=3, n_head=4, n_positions=32,
                 activation_function="gelu_new", layer_norm_epsilon=1e-5,
                 tie_word_embeddings=True),
    "llama": dict(model_type="llama", vocab_size=89, hidden_size=48, num_hidden_layers=3,
                  num_attention_heads=6, num_key_value_heads=2, intermediate_size=80,
                  max_position_embeddings=32, rope_theta=10000.0, rms_norm_eps=1e-6,
                  hidden_act="silu", attention_bias=False, mlp_bias=False,
                  tie_word_embeddings=False),
    "llama_bias": dict(model_type="llama", vocab_size=61, hidden_size=40, num_hidden_layers=2,
                       num_attention_heads=4, num_key_value_heads=1, head_dim=12,
                       intermediate_size=56, max_position_embeddings=64, rope_theta=500000.0,
                       rms_norm_eps=1e-5, hidden_act="silu", attention_bias=True, mlp_bias=True,
                       tie_word_embeddings=True),
}
FORWARD = dict(step=1000, sequences=2, sequence_length=17)
TRAINING = dict(steps=20, micro_batches=2, sequences=2, sequence_length=16, lr=1e-3,
                warmup_steps=3, beta1=0.9, beta2=0.95, eps=1e-8, weight_decay=0.1)
# Gradient norms are 1.1 .. 3.7: the first two clip in every step, the third only in some.
CLIP = {"gpt2": 1.0, "llama": 1.0, "llama_bias": 2.0}


# --- the generator (twin: tests/golden/golden_model.h) -------------------------------------------
def golden_bits(name, index):
    key = 0xCBF29CE484222325
    for byte in name.encode():
        key = (key ^ byte) * 0x100000001B3 % 2**64
    with np.errstate(over="ignore"):
        z = np.uint64(key) + (index.astype(np.uint64) + np.uint64(1)) * np.uint64(
            0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def golden_values(name, shape):
    bits = golden_bits(name, np.arange(math.prod(shape)))
    u = ((bits >> np.uint64(48)).astype(np.int64) - 32768) / 32768.0
    if name.endswith(".gain"):
        values = 1 + u / 8
    elif name.endswith(".bias"):
        values = u / 32
    else:
        values = u * 5 / 32
    return torch.from_numpy(values.reshape(shape))


def golden_tokens(step, first, count, vocab):
    bits = golden_bits("tokens", step * 2**20 + first + np.arange(count))
    low, high = bits % np.uint64(2**32), bits >> np.uint64(32)
    v = np.uint64(vocab)
    return ((low % v) * (high % v) // v).astype(np.int64)


# --- HF models under canonical names -------------------------------------------------------------
class ExactRMSNorm(modeling_llama.LlamaRMSNorm):
    def forward(self, x):
        eps = self.variance_epsilon
        return self.weight * (x * torch.rsqrt(x.square().mean(-1, keepdim=True) + eps))


class ExactRotary(modeling_llama.LlamaRotaryEmbedding):
    def forward(self, x, position_ids):
        head = self.inv_freq.numel() * 2
        theta = self.config.rope_parameters["rope_theta"]
        frequency = theta ** (-torch.arange(0, head, 2, dtype=torch.float64) / head)
        angle = position_ids[..., None].double() * frequency
        angle = torch.cat((angle, angle), dim=-1)
        return angle.cos(), angle.sin()


def make_model(config, exact):
    kind = config["model_type"]
    if kind == "gpt2":
        hf_config = transformers.GPT2Config(resid_pdrop=0, embd_pdrop=0, attn_pdrop=0,
                                            bos_token_id=0, eos_token_id=0, **config)
        model = transformers.GPT2LMHeadModel(hf_config)
    else:
        hf_config = transformers.LlamaConfig(**config)
        assert hf_config.rope_parameters["rope_theta"] == config["rope_theta"]
        model = transformers.LlamaForCausalLM(hf_config)
    model.config._attn_implementation = "sdpa"  # eager Llama rounds its softmax to float32
    model.train()
    model = model.double() if exact else model.float()
    if exact and kind == "llama":
        for module in model.modules():
            if type(module) is modeling_llama.LlamaRMSNorm:
                module.__class__ = ExactRMSNorm
            if type(module) is modeling_llama.LlamaRotaryEmbedding:
                module.__class__ = ExactRotary
    with torch.no_grad():
        for name, of, view in canonical_views(model):
            target = view(of.data)
            target.copy_(golden_values(name, target.shape))
    return model


def canonical_views(model):
    """(canonical name, HF parameter, view of it or of its gradient in the canonical shape)."""
    same = lambda t: t
    whole = lambda name, module, view=same: [
        (f"{name}.{part}", getattr(module, part), view if part == "weight" else same)
        for part in ("weight", "bias") if getattr(module, part, None) is not None]
    norm = lambda name, module: [
        (n.replace(".weight", ".gain"), p, v) for n, p, v in whole(name, module)]
    views = []
    if model.config.model_type == "gpt2":
        base, D = model.transformer, model.config.n_embd
        transposed = lambda t: t.t()  # HF Conv1D stores [in, out]
        views += [("embed.tokens", base.wte.weight, same),
                  ("embed.positions", base.wpe.weight, same)]
        for i, block in enumerate(base.h):
            at, attn, mlp = f"block.{i}", block.attn, block.mlp
            views += norm(f"{at}.norm1", block.ln_1)
            for s, part in enumerate("qkv"):
                rows = slice(s * D, (s + 1) * D)
                views.append((f"{at}.attention.{part}.weight", attn.c_attn.weight,
                              lambda t, rows=rows: t.t()[rows]))
                views.append((f"{at}.attention.{part}.bias", attn.c_attn.bias,
                              lambda t, rows=rows: t[rows]))
            views += whole(f"{at}.attention.out", attn.c_proj, transposed)
            views += norm(f"{at}.norm2", block.ln_2)
            views += whole(f"{at}.mlp.up", mlp.c_fc, transposed)
            views += whole(f"{at}.mlp.down", mlp.c_proj, transposed)
        return views + norm("final_norm", base.ln_f)
    base = model.model
    views += [("embed.tokens", base.embed_tokens.weight, same)]
    for i, block in enumerate(base.layers):
        at, attn, mlp = f"block.{i}", block.self_attn, block.mlp
        views += norm(f"{at}.norm1", block.input_layernorm)
        for part, module in (("q", attn.q_proj), ("k", attn.k_proj), ("v", attn.v_proj),
                             ("out", attn.o_proj)):
            views += whole(f"{at}.attention.{part}", module)
        views += norm(f"{at}.norm2", block.post_attention_layernorm)
        for part in ("gate", "up", "down"):
            views += whole(f"{at}.mlp.{part}", getattr(mlp, f"{part}_proj"))
    views += norm("final_norm", base.norm)
    if not model.config.tie_word_embeddings:
        views += whole("head", model.lm_head)
    return views


def check_views_cover(model, views):
    covered = sum(view(of.data).numel() for _, of, view in views)
    held = sum(p.numel() for p in model.parameters())  # tied parameters count once
    assert covered == held, f"canonical names cover {covered} of {held} parameters"


# --- the numbers ---------------------------------------------------------------------------------
def forward_logits(model, vocab):
    B, T = FORWARD["sequences"], FORWARD["sequence_length"]
    tokens = golden_tokens(FORWARD["step"], 0, B * T, vocab)
    with torch.no_grad():
        logits = model(torch.from_numpy(tokens.reshape(B, T)), use_cache=False).logits
    return tokens, logits


def train(model, vocab, clip):
    s = TRAINING
    B, T, M = s["sequences"], s["sequence_length"], s["micro_batches"]
    parameters = list(model.parameters())
    optimizer = torch.optim.AdamW(
        [dict(params=[p for p in parameters if p.dim() >= 2], weight_decay=s["weight_decay"]),
         dict(params=[p for p in parameters if p.dim() < 2], weight_decay=0.0)],
        lr=s["lr"], betas=(s["beta1"], s["beta2"]), eps=s["eps"], foreach=False)
    losses, norms, rates, first_gradients = [], [], [], {}
    for step in range(s["steps"]):
        total = 0.0
        for m in range(M):
            batch = golden_tokens(step, m * B * (T + 1), B * (T + 1), vocab).reshape(B, T + 1)
            batch = torch.from_numpy(batch)
            logits = model(batch[:, :-1], use_cache=False).logits
            loss = torch.nn.functional.cross_entropy(
                logits.reshape(-1, vocab), batch[:, 1:].reshape(-1), reduction="sum") / (M * B * T)
            loss.backward()
            total += loss.item()
        if step == 0:
            first_gradients = {name: view(of.grad).norm().item()
                               for name, of, view in canonical_views(model)}
        norm = math.sqrt(sum(p.grad.square().sum().item() for p in parameters))
        scale = min(1.0, clip / norm)
        for p in parameters:
            p.grad.mul_(scale)
        lr = s["lr"] * min(1.0, (step + 1) / s["warmup_steps"])
        for group in optimizer.param_groups:
            group["lr"] = lr
        optimizer.step()
        optimizer.zero_grad()
        losses.append(total)
        norms.append(norm)
        rates.append(lr)
    return losses, norms, rates, first_gradients


def digits(value, count):
    return float(f"{value:.{count}g}")


def make_golden(config, clip):
    vocab = config["vocab_size"]
    model = make_model(config, exact=True)
    views = canonical_views(model)
    check_views_cover(model, views)
    parameters = []
    for name, of, view in views:
        values = view(of.data).contiguous()
        flat = values.reshape(-1)
        indices = sorted({0, flat.numel() // 3, flat.numel() - 1})
        parameters.append(dict(
            name=name, shape=list(values.shape), samples=[[i, flat[i].item()] for i in indices],
            initial_sum=flat.sum().item(), initial_square_sum=flat.square().sum().item()))
    tokens, logits = forward_logits(model, vocab)
    assert logits.dtype == torch.float64
    losses, norms, rates, first_gradients = train(model, vocab, clip)
    for entry, (name, of, view) in zip(parameters, views):
        final = view(of.data)
        zero_gradient = name.endswith(".k.bias") and config["model_type"] == "gpt2"
        entry["gradient_norm"] = None if zero_gradient else digits(first_gradients[name], 12)
        entry["final_sum"] = entry["final_square_sum"] = None
        if not name.endswith(".k.bias"):
            entry["final_sum"] = digits(final.sum().item(), 12)
            entry["final_square_sum"] = digits(final.square().sum().item(), 12)

    stock = make_model(config, exact=False)
    _, stock_logits = forward_logits(stock, vocab)
    stock_losses, stock_norms, _, stock_gradients = train(stock, vocab, clip)
    relative = lambda a, b: max(abs(x - y) / abs(y) for x, y in zip(a, b))
    held = lambda key: [e["name"] for e in parameters if e[key] is not None]
    finals = {name: view(of.data).square().sum().item() for name, of, view in views}
    stock_finals = {name: view(of.data).square().sum().item()
                    for name, of, view in canonical_views(stock)}
    deviation = dict(logits=((stock_logits - logits).abs().max() / logits.abs().max()).item(),
                     loss=relative(stock_losses, losses), grad_norm=relative(stock_norms, norms),
                     gradient_norms=relative(*[[of[n] for n in held("gradient_norm")]
                                               for of in (stock_gradients, first_gradients)]),
                     final_square_sums=relative(*[[of[n] for n in held("final_square_sum")]
                                                  for of in (stock_finals, finals)]))
    print("  stock float32 deviates by", {k: f"{v:.1e}" for k, v in deviation.items()})
    assert max(deviation.values()) < 1e-5, "float64 twins differ from HF's own model"

    return dict(
        made_with=f"torch {torch.__version__.split('+')[0]}, "
                  f"transformers {transformers.__version__}",
        config=config,
        parameters=parameters,
        forward=dict(FORWARD, tokens=tokens.tolist(),
                     logits=[[digits(x, 9) for x in row] for row in logits.flatten(0, 1).tolist()]),
        training=dict(TRAINING, clip=clip, loss=[digits(x, 12) for x in losses],
                      grad_norm=[digits(x, 12) for x in norms],
                      lr_per_step=[digits(x, 12) for x in rates]))


def to_text(golden):
    """JSON with one line per parameter, per row of logits and per list."""
    lines = lambda rows: "[\n  " + ",\n  ".join(json.dumps(r) for r in rows) + "]"
    forward = {k: v for k, v in golden["forward"].items() if k != "logits"}
    forward_text = json.dumps(forward)[:-1] + ',\n "logits": ' + lines(golden["forward"]["logits"])
    training_text = ",\n  ".join(f"{json.dumps(k)}: {json.dumps(v)}"
                                 for k, v in golden["training"].items())
    return ("{" + f'"made_with": {json.dumps(golden["made_with"])},\n'
            f'"config": {json.dumps(golden["config"])},\n'
            f'"parameters": {lines(golden["parameters"])},\n'
            f'"forward": {forward_text}}},\n"training": {{{training_text}}}}}\n')


def assert_close(made, stored, where):
    """Numbers within 1e-8 relative (or 1e-9), everything else equal."""
    if isinstance(made, dict):
        assert made.keys() == stored.keys(), where
        for key in made:
            if key != "made_with":
                assert_close(made[key], stored[key], f"{where}.{key}")
    elif isinstance(made, list):
        assert len(made) == len(stored), where
        for i, (a, b) in enumerate(zip(made, stored)):
            assert_close(a, b, f"{where}[{i}]")
    elif isinstance(made, float):
        assert math.isclose(made, stored, rel_tol=1e-8, abs_tol=1e-9), f"{where}: {made} {stored}"
    else:
        assert made == stored, f"{where}: {made} {stored}"


# --- sampling: HF's logits processors ------------------------------------------------------------
SAMPLING_VOCAB = 61
SAMPLING = [dict(temperature=t, top_k=k, top_p=p, repetition_penalty=r)
            for t, k, p, r in [(1.0, 0, 1.0, 1.0), (0.7, 5, 1.0, 1.0), (1.0, 0, 0.8, 1.0),
                               (1.5, 20, 0.6, 1.0), (0.9, 0, 1.0, 1.3), (0.8, 7, 0.9, 1.8),
                               (1.2, 0, 0.95, 0.6), (1.0, 1, 1.0, 1.1), (2.5, 61, 1e-6, 1.0)]]


def make_sampling_golden():
    """Probabilities that HF's processors leave, in the order in which generate() applies them."""
    logits = 32 * golden_values("sampling", (1, SAMPLING_VOCAB))
    seen = sorted(set(int(token) for token in golden_tokens(3, 0, 12, SAMPLING_VOCAB)))
    cases = []
    for setting in SAMPLING:
        processors = transformers.LogitsProcessorList()
        if setting["repetition_penalty"] != 1:
            processors.append(transformers.RepetitionPenaltyLogitsProcessor(
                setting["repetition_penalty"]))
        processors.append(transformers.TemperatureLogitsWarper(setting["temperature"]))
        if setting["top_k"] > 0:
            processors.append(transformers.TopKLogitsWarper(setting["top_k"]))
        if setting["top_p"] < 1:
            processors.append(transformers.TopPLogitsWarper(setting["top_p"]))
        kept = torch.softmax(processors(torch.tensor([seen]), logits.clone()), dim=-1)[0]
        cases.append(setting | {"probabilities": [[i, p] for i, p in enumerate(kept.tolist())
                                                  if p > 0]})
    return {"made_with": f"torch {torch.__version__.split('+')[0]}, "
                         f"transformers {transformers.__version__}",
            "vocab_size": SAMPLING_VOCAB, "seen": seen, "cases": cases}


def sampling_text(golden):
    cases = ",\n".join(json.dumps(case) for case in golden["cases"])
    return ("{" + f'"made_with": {json.dumps(golden["made_with"])},\n'
            f'"vocab_size": {golden["vocab_size"]}, "seen": {json.dumps(golden["seen"])},\n'
            f'"cases": [\n{cases}]}}\n')


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--hf-check", action="store_true",
                        help="compare with the committed files instead of writing them")
    check = parser.parse_args().hf_check
    torch.set_num_threads(1)
    sampling, path = make_sampling_golden(), GOLDEN / "sampling.json"
    print(path.name)
    if check:
        assert_close(sampling, json.loads(path.read_text()), path.name)
        print("  equals the committed file")
    else:
        path.write_text(sampling_text(sampling))
    for name, config in MODELS.items():
        path = GOLDEN / f"{name}.json"
        print(path.name)
        golden = make_golden(config, CLIP[name])
        text = to_text(golden)
        assert json.loads(text) == golden
        if check:
            assert_close(golden, json.loads(path.read_text()), path.name)
            print("  equals the committed file")
        else:
            path.write_text(text)
            print(f"  {len(text)} bytes; loss {golden['training']['loss'][0]:.4f} ->"
                  f" {golden['training']['loss'][-1]:.4f}; grad norm"
                  f" {min(golden['training']['grad_norm']):.3f} .."
                  f" {max(golden['training']['grad_norm']):.3f}")


if __name__ == "__main__":
    sys.exit(main())
