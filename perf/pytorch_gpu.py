#!/usr/bin/env python3
"""The training steps of step_bench --gpu in PyTorch 2, to compare speeds on the same GPU.

Usage: pytorch_gpu.py MODEL [--batch N] [--length N] [--layers N] [--steps N] [--attention NAME]
       pytorch_gpu.py attention
Prints one line of JSON. Exits 77, with a line that says why, where PyTorch or a GPU is missing.

What a fast single-GPU training in PyTorch is made of, nothing held back: the whole model compiled,
scaled_dot_product_attention with the flash kernel (or cuDNN's: --attention cudnn), AdamW with its
fused kernel, matrix products in bf16 by autocast over fp32 weights, which are the masters: 16 bytes
of state per parameter, as ours. The vocabulary is padded to a multiple of 128, which products like;
ours is not. Gradients are clipped by their global norm, as ours.
"attention" measures that op alone, forward and backward, on the shapes of gpu_kernels_bench with
each library kernel that PyTorch has.
"""
import argparse
import json
import math
import statistics
import sys
import time

try:
    import torch
    from torch import nn
    from torch.nn import functional as F
except ImportError:
    print("pytorch_gpu: skipped: Python has no torch")
    sys.exit(77)

# gpt2: hidden, layers, heads, vocabulary; Llama also key/value heads and feed-forward size.
MODELS = {
    "gpt2-124m": {"hidden": 768, "layers": 12, "heads": 12, "vocabulary": 50257},
    "gpt2-1558m": {"hidden": 1600, "layers": 48, "heads": 25, "vocabulary": 50257},
    "llama2-7b": {"hidden": 4096, "layers": 32, "heads": 32, "vocabulary": 32000, "kv_heads": 32,
                  "ffn": 11008},
}


def attend(q, k, v):
    grouped = {"enable_gqa": True} if k.shape[1] != q.shape[1] else {}
    return F.scaled_dot_product_attention(q, k, v, is_causal=True, **grouped)


def heads_of(x, count):
    """B T (H K) as B H T K."""
    return x.unflatten(-1, (count, -1)).transpose(1, 2)


class Gpt2Block(nn.Module):
    def __init__(self, shape):
        super().__init__()
        hidden = shape["hidden"]
        self.heads = shape["heads"]
        self.norm1, self.norm2 = nn.LayerNorm(hidden), nn.LayerNorm(hidden)
        self.qkv, self.out = nn.Linear(hidden, 3 * hidden), nn.Linear(hidden, hidden)
        self.up, self.down = nn.Linear(hidden, 4 * hidden), nn.Linear(4 * hidden, hidden)

    def forward(self, x, _):
        q, k, v = (heads_of(part, self.heads) for part in self.qkv(self.norm1(x)).chunk(3, dim=-1))
        x = x + self.out(attend(q, k, v).transpose(1, 2).flatten(2))
        return x + self.down(F.gelu(self.up(self.norm2(x)), approximate="tanh"))


def rotate(x, turns):
    """Pairs (i, i + K/2) by the angles of their positions."""
    cos, sin = turns
    a, b = x.chunk(2, dim=-1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), dim=-1).to(x.dtype)


class LlamaBlock(nn.Module):
    def __init__(self, shape):
        super().__init__()
        hidden = shape["hidden"]
        self.heads, self.kv_heads = shape["heads"], shape["kv_heads"]
        size = hidden // self.heads
        self.sizes = [hidden, self.kv_heads * size, self.kv_heads * size]
        self.norm1, self.norm2 = nn.RMSNorm(hidden, eps=1e-5), nn.RMSNorm(hidden, eps=1e-5)
        self.qkv = nn.Linear(hidden, sum(self.sizes), bias=False)
        self.out = nn.Linear(hidden, hidden, bias=False)
        self.gate_up = nn.Linear(hidden, 2 * shape["ffn"], bias=False)
        self.down = nn.Linear(shape["ffn"], hidden, bias=False)

    def forward(self, x, turns):
        q, k, v = self.qkv(self.norm1(x)).split(self.sizes, dim=-1)
        q, k = rotate(heads_of(q, self.heads), turns), rotate(heads_of(k, self.kv_heads), turns)
        o = attend(q, k, heads_of(v, self.kv_heads))
        x = x + self.out(o.transpose(1, 2).flatten(2))
        gate, up = self.gate_up(self.norm2(x)).chunk(2, dim=-1)
        return x + self.down(F.silu(gate) * up)


class Model(nn.Module):
    """Returns the mean loss. The head is the embedding's matrix in GPT-2, its own in Llama."""

    def __init__(self, shape, length):
        super().__init__()
        hidden, rows = shape["hidden"], -(-shape["vocabulary"] // 128) * 128
        llama = "ffn" in shape
        self.tokens = nn.Embedding(rows, hidden)
        self.positions = None if llama else nn.Embedding(length, hidden)
        block = LlamaBlock if llama else Gpt2Block
        self.blocks = nn.ModuleList(block(shape) for _ in range(shape["layers"]))
        self.norm = nn.RMSNorm(hidden, eps=1e-5) if llama else nn.LayerNorm(hidden)
        self.head = nn.Linear(hidden, rows, bias=False)
        if not llama:
            self.head.weight = self.tokens.weight
        for weight in self.parameters():
            if weight.dim() > 1:
                nn.init.normal_(weight, std=0.02)
        half = hidden // shape["heads"] // 2
        angles = torch.outer(torch.arange(length).float(),
                             10000.0 ** (-torch.arange(half).float() / half))
        self.register_buffer("cos", angles.cos(), persistent=False)
        self.register_buffer("sin", angles.sin(), persistent=False)

    def forward(self, tokens, targets):
        x = self.tokens(tokens)
        if self.positions is not None:
            x = x + self.positions.weight
        for block in self.blocks:
            x = block(x, (self.cos, self.sin))
        logits = self.head(self.norm(x))
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten())


def flops_per_token(shape, length):
    """6 N + 6 L C T, as flops_per_token of runtime/config: the head counts once, look-ups do not."""
    hidden, layers = shape["hidden"], shape["layers"]
    kv = hidden // shape["heads"] * shape.get("kv_heads", shape["heads"])
    ffn = 3 * hidden * shape["ffn"] if "ffn" in shape else 8 * hidden * hidden
    block = 2 * hidden * hidden + 2 * hidden * kv + ffn
    matrices = layers * block + shape["vocabulary"] * hidden
    return 6 * matrices + 6 * layers * hidden * length


def use_attention(name):
    torch.backends.cuda.enable_flash_sdp(name == "flash")
    torch.backends.cuda.enable_cudnn_sdp(name == "cudnn")
    torch.backends.cuda.enable_mem_efficient_sdp(False)
    torch.backends.cuda.enable_math_sdp(False)


def machine():
    return {"torch": torch.__version__, "gpu": torch.cuda.get_device_name(0)}


def train(args):
    shape = dict(MODELS[args.model])
    shape["layers"] = args.layers or shape["layers"]
    use_attention(args.attention)
    torch.manual_seed(1)
    with torch.device("cuda"):
        model = Model(shape, args.length)
        tokens, targets = (torch.randint(shape["vocabulary"], (args.batch, args.length))
                           for _ in range(2))
    decayed = [w for w in model.parameters() if w.dim() > 1]
    others = [w for w in model.parameters() if w.dim() <= 1]
    optimizer = torch.optim.AdamW([{"params": decayed, "weight_decay": 0.1},
                                   {"params": others, "weight_decay": 0.0}],
                                  lr=1e-4, betas=(0.9, 0.95), eps=1e-8, fused=True)
    compiled = torch.compile(model)

    def step():
        with torch.autocast("cuda", dtype=torch.bfloat16):
            loss = compiled(tokens, targets)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss

    begin = time.perf_counter()
    for _ in range(5):
        loss = step()
    first = loss.item()
    compile_s = time.perf_counter() - begin
    times = []
    for _ in range(args.steps):
        begin = time.perf_counter()
        step().item()  # the loss is read in every step, as a training log does
        times.append(time.perf_counter() - begin)
    assert math.isfinite(first)
    rate = args.batch * args.length / statistics.median(times)
    return {"model": args.model, "layers": shape["layers"], "batch": args.batch,
            "length": args.length, "attention": args.attention, "tokens_per_s": round(rate, 1),
            "model_tflop_s": round(rate * flops_per_token(shape, args.length) * 1e-12, 2),
            "memory_bytes": torch.cuda.max_memory_reserved(), "compile_s": round(compile_s, 1),
            **machine()}


def microseconds(body, calls=20, samples=5):
    body()
    times = []
    for _ in range(samples):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        for _ in range(calls):
            body()
        end.record()
        end.synchronize()
        times.append(1e3 * begin.elapsed_time(end) / calls)
    return statistics.median(times)


def attention():
    rows = []
    for batch, length, heads, kv_heads, size in ((16, 1024, 12, 12, 64), (1, 4096, 32, 32, 128),
                                                 (1, 4096, 32, 8, 128)):
        for backend in ("flash", "cudnn"):
            use_attention(backend)
            q, k, v = (heads_of(torch.randn(batch, length, count * size, device="cuda",
                                            dtype=torch.bfloat16), count).requires_grad_()
                       for count in (heads, kv_heads, kv_heads))
            row = {"shape": [batch, length, heads, kv_heads, size], "backend": backend}
            try:
                o = attend(q, k, v)
                gradient = torch.randn_like(o)
                with torch.no_grad():
                    row["forward_us"] = round(microseconds(lambda: attend(q, k, v)), 2)
                row["backward_us"] = round(microseconds(
                    lambda: torch.autograd.grad(o, (q, k, v), gradient, retain_graph=True)), 2)
            except RuntimeError as error:
                row["error"] = str(error).splitlines()[0]
            rows.append(row)
    return {"attention": rows, **machine()}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", choices=[*MODELS, "attention"])
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--length", type=int, default=1024)
    parser.add_argument("--layers", type=int, default=0, help="0: the model's")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--attention", choices=["flash", "cudnn"], default="flash")
    args = parser.parse_args()
    if not torch.cuda.is_available():
        print("pytorch_gpu: skipped: PyTorch finds no GPU")
        return 77
    print(json.dumps(attention() if args.model == "attention" else train(args)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
