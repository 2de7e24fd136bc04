// The kernels' cases, one table for the tests and for perf/: an op with its attributes and operand
// shapes. `small_cases` visits odd, prime and edge shapes (1, block edges and their neighbours);
// `model_cases` the shapes of GPT-2 124M and of a grouped-query model.
// Path: cold.
#pragma once

#include <cmath>
#include <cstring>
#include <ostream>
#include <string>
#include <vector>

#include "kernels/kernels.h"
#include "runtime/base/dtype.h"
#include "runtime/program/op_table.h"

namespace plumb::testing {

struct KernelCase {
    std::string name;
    OpKind kind = OpKind::count;
    Attrs attrs;
    Shape shape[kMaxOperands];
    int32_t micro_batch = 0;
    Dtype value_dtype = Dtype::f32;

    int operands() const { return op_row(kind).operand_count; }
    // The op, its present operands numbered as they stand.
    Op op() const {
        Op made;
        made.kind = kind;
        made.attrs = attrs;
        made.dtype = value_dtype;
        made.operand_count = static_cast<int16_t>(operands());
        for (int i = 0; i < operands(); ++i) made.operand[i] = shape[i].rank == 0 ? kNoTensor : i;
        return made;
    }
    // Whether an operand's old value counts.
    bool updates(int operand) const { return operand_access(op(), operand) == Access::update; }
    bool writes(int operand) const { return operand_access(op(), operand) != Access::read; }
    Dtype dtype(int operand) const { return operand_dtype(op(), operand); }
};

// For GoogleTest's messages.
inline void PrintTo(const KernelCase& c, std::ostream* out) {
    *out << c.name;
}

inline std::string case_name(OpKind kind, std::initializer_list<int64_t> numbers,
                             const char* variant = "") {
    std::string name = op_row(kind).name;
    for (const int64_t n : numbers) name += "_" + std::to_string(n);
    return *variant == 0 ? name : name + "_" + variant;
}

inline KernelCase embed_case(bool backward, int64_t b, int64_t t, int64_t d, int64_t v, int64_t s) {
    KernelCase c;
    c.kind = backward ? OpKind::embed_backward : OpKind::embed;
    c.name = case_name(c.kind, {b, t, d, v, s});
    const Shape x = make_shape(b, t, d), wte = make_shape(v, d), bt = make_shape(b, t);
    const Shape wpe = s > 0 ? make_shape(s, d) : Shape{};
    const Shape positions = s > 0 ? bt : Shape{};
    const Shape forward[] = {x, wte, wpe, bt, positions}, back[] = {wte, wpe, x, bt, positions};
    for (int i = 0; i < 5; ++i) c.shape[i] = backward ? back[i] : forward[i];
    return c;
}

// variant: "layer", "rms"; backward with accumulate or without gradients of parameters.
inline KernelCase norm_case(int64_t rows, int64_t d, NormKind kind, bool beta, bool stats) {
    KernelCase c;
    c.kind = OpKind::norm;
    c.name = case_name(c.kind, {rows, d}, kind == NormKind::layer ? "layer" : "rms");
    c.attrs.norm = {1e-5, kind, 0};
    c.shape[0] = c.shape[2] = make_shape(1, rows, d);
    if (stats) c.shape[1] = make_shape(1, rows, 2);
    c.shape[3] = make_shape(d);
    if (beta) c.shape[4] = make_shape(d);
    return c;
}
inline KernelCase norm_backward_case(int64_t rows, int64_t d, NormKind kind, bool accumulate,
                                     bool params) {
    KernelCase c;
    c.kind = OpKind::norm_backward;
    c.name = case_name(c.kind, {rows, d, accumulate}, kind == NormKind::layer ? "layer" : "rms");
    c.attrs.norm = {1e-5, kind, accumulate ? 1 : 0};
    c.shape[0] = c.shape[3] = c.shape[4] = make_shape(1, rows, d);
    if (params) c.shape[1] = make_shape(d);
    if (params && kind == NormKind::layer) c.shape[2] = make_shape(d);
    c.shape[5] = make_shape(1, rows, 2);
    c.shape[6] = make_shape(d);
    return c;
}

// With `sequences` > 0 each row names which of them it is.
inline KernelCase sample_case(int64_t rows, int64_t vocabulary, int64_t sequences = 0) {
    KernelCase c;
    c.kind = OpKind::sample;
    c.name = case_name(c.kind, {rows, vocabulary, sequences});
    c.shape[0] = make_shape(rows);
    c.shape[1] = make_shape(rows, vocabulary);
    c.shape[2] = make_shape(sequences > 0 ? sequences : rows, vocabulary);
    c.shape[3] = make_shape(sequences > 0 ? sequences : rows, 2);
    if (sequences > 0) c.shape[4] = make_shape(rows);
    return c;
}
struct Epilogue {
    bool bias, gelu, pre, residual;
};
inline KernelCase matmul_case(int64_t n, int64_t i, int64_t o, Epilogue e) {
    KernelCase c;
    c.kind = OpKind::matmul;
    const std::string variant = std::string(e.bias ? "b" : "") + (e.gelu ? "g" : "") +
                                (e.pre ? "p" : "") + (e.residual ? "r" : "");
    c.name = case_name(c.kind, {n, i, o}, variant.c_str());
    c.attrs.matmul = {e.gelu ? Activation::gelu_tanh : Activation::none, 0, 0, 0};
    c.shape[0] = make_shape(n, o);
    if (e.pre) c.shape[1] = make_shape(n, o);
    c.shape[2] = make_shape(n, i);
    c.shape[3] = make_shape(o, i);
    if (e.bias) c.shape[4] = make_shape(o);
    if (e.residual) c.shape[5] = make_shape(n, o);
    return c;
}
inline KernelCase matmul_dx_case(int64_t n, int64_t i, int64_t o, bool accumulate) {
    KernelCase c;
    c.kind = OpKind::matmul_dx;
    c.name = case_name(c.kind, {n, i, o, accumulate});
    c.attrs.matmul = {Activation::none, accumulate ? 1 : 0, 0, 0};
    c.shape[0] = make_shape(n, i);
    c.shape[1] = make_shape(n, o);
    c.shape[2] = make_shape(o, i);
    return c;
}
inline KernelCase matmul_dw_case(int64_t n, int64_t i, int64_t o, bool weight, bool bias) {
    KernelCase c;
    c.kind = OpKind::matmul_dw;
    c.name = case_name(c.kind, {n, i, o, weight, bias});
    if (weight) c.shape[0] = make_shape(o, i);
    if (bias) c.shape[1] = make_shape(o);
    c.shape[2] = make_shape(n, o);
    c.shape[3] = make_shape(n, i);
    return c;
}

// Ops of one tensor shape: gelu, gelu_backward, add, fold, adamw, zero, init.
inline KernelCase flat_case(OpKind kind, int64_t count) {
    KernelCase c;
    c.kind = kind;
    c.name = case_name(kind, {count});
    for (int i = 0; i < c.operands(); ++i) c.shape[i] = make_shape(count);
    if (kind == OpKind::adamw) {
        c.shape[AdamwOperands::master] = {};
        c.shape[AdamwOperands::clip] = make_shape(4);
    }
    if (kind == OpKind::init) c.shape[InitOperands::master] = {};
    if (kind == OpKind::clip) c.shape[ClipOperands::loss_scale] = {};
    if (kind == OpKind::grad_norm) c.shape[0] = make_shape(4);
    if (kind == OpKind::digest) {
        c.shape[DigestOperands::digest] = make_shape(2);
        c.shape[DigestOperands::low] = {};
    }
    return c;
}
inline KernelCase swiglu_case(bool backward, int64_t n, int64_t f) {
    KernelCase c;
    c.kind = backward ? OpKind::swiglu_backward : OpKind::swiglu;
    c.name = case_name(c.kind, {n, f});
    c.shape[0] = backward ? make_shape(n, 2 * f) : make_shape(n, f);
    c.shape[1] = backward ? make_shape(n, f) : make_shape(n, 2 * f);
    if (backward) c.shape[2] = make_shape(n, 2 * f);
    return c;
}

struct Heads {
    int64_t query, kv, size;
};
// kind: rope, attention, attention_backward, attention_cached (cache: positions of the cache).
// With `sequences` > 0 (cached only) each row names which of them it is.
inline KernelCase attention_case(OpKind kind, int64_t b, int64_t t, Heads h, int64_t cache = 0,
                                 int64_t sequences = 0) {
    KernelCase c;
    c.kind = kind;
    c.name = case_name(kind, {b, t, h.query, h.kv, h.size});
    if (kind == OpKind::attention_cached) c.name += "_" + std::to_string(cache);
    if (sequences > 0) c.name += "_of_" + std::to_string(sequences);
    c.attrs.attention = {1.0 / std::sqrt(static_cast<double>(h.size)),
                         10000.0,
                         static_cast<int32_t>(h.query),
                         static_cast<int32_t>(h.kv),
                         static_cast<int32_t>(h.size),
                         0};
    const Shape qkv = make_shape(b, t, (h.query + 2 * h.kv) * h.size);
    const Shape o = make_shape(b, t, h.query * h.size), lse = make_shape(b, h.query, t);
    const Shape bt = make_shape(b, t);
    const Shape kv = make_shape(sequences > 0 ? sequences : b, cache, h.kv, h.size);
    std::vector<Shape> shapes;
    if (kind == OpKind::rope) shapes = {qkv, bt};
    if (kind == OpKind::attention) shapes = {o, lse, qkv, bt};
    if (kind == OpKind::attention_backward) shapes = {qkv, o, qkv, o, lse, bt};
    if (kind == OpKind::attention_cached) shapes = {o, kv, kv, qkv, bt};
    if (sequences > 0) shapes.push_back(make_shape(b));
    for (size_t i = 0; i < shapes.size(); ++i) c.shape[i] = shapes[i];
    return c;
}
inline KernelCase head_loss_case(bool backward, int64_t n, int64_t d, int64_t v, int64_t chunk,
                                 bool scaled = false) {
    KernelCase c;
    c.kind = backward ? OpKind::head_loss_backward : OpKind::head_loss;
    c.name = case_name(c.kind, {n, d, v, chunk}, scaled ? "scaled" : "");
    c.attrs.loss.chunk = chunk;
    const Shape x = make_shape(1, n, d), w = make_shape(v, d), bt = make_shape(1, n);
    const Shape one = make_shape(1);
    const Shape scale = scaled ? make_shape(2) : Shape{};
    const Shape forward[] = {one, x, w, bt, bt, scale}, back[] = {one, x, w, x, w, bt, bt, scale};
    for (int i = 0; i < c.operands(); ++i) c.shape[i] = backward ? back[i] : forward[i];
    return c;
}
inline KernelCase select_case(int64_t b, int64_t t, int64_t d) {
    KernelCase c;
    c.kind = OpKind::select_rows;
    c.name = case_name(c.kind, {b, t, d});
    c.shape[0] = make_shape(b, d);
    c.shape[1] = make_shape(b, t, d);
    c.shape[2] = make_shape(b);
    return c;
}

inline void add_matmul_cases(std::vector<KernelCase>* cases) {
    // Around every block edge: rows streamed (<= 8), mr 4/6/12, nr 8/16/32, kc 256, mc, nc.
    const int64_t shapes[][3] = {
        {1, 1, 1},     {1, 7, 3},    {2, 33, 17},   {3, 64, 65},   {4, 129, 31},  {7, 16, 5},
        {8, 15, 66},   {9, 1, 1},    {9, 17, 33},   {12, 255, 32}, {13, 256, 31}, {11, 257, 64},
        {24, 513, 97}, {97, 40, 11}, {385, 19, 35}, {63, 2, 3079}, {64, 96, 48}};
    const Epilogue epilogues[] = {{false, false, false, false},
                                  {true, false, false, false},
                                  {true, true, true, false},
                                  {true, false, false, true},
                                  {false, true, false, true}};
    int turn = 0;
    for (const auto& s : shapes) {
        cases->push_back(matmul_case(s[0], s[1], s[2], epilogues[turn++ % 5]));
        cases->push_back(matmul_case(s[0], s[1], s[2], epilogues[turn++ % 5]));
        cases->push_back(matmul_dx_case(s[0], s[1], s[2], turn % 2 == 0));
        cases->push_back(matmul_dw_case(s[0], s[1], s[2], turn % 5 != 4, turn % 3 != 1));
    }
    for (const int64_t rows : {3, 13}) {
        KernelCase wide = matmul_case(rows, 263, 45, {true, false, false, false});
        wide.attrs.matmul.wide = 1;
        wide.name += "_wide";
        cases->push_back(wide);
    }
    cases->push_back(matmul_case(1155, 523, 5, {true, true, true, false}));
    cases->push_back(matmul_case(13, 523, 1027, {true, false, false, true}));
    cases->push_back(matmul_dx_case(5, 31, 515, true));
    cases->push_back(matmul_dw_case(523, 37, 29, true, true));
}

// Rows as a GPU has them: of a warp, of a block, longer than a block holds, many to a block; tokens
// that repeat in thousands, and ids of one, two and three digits of its sort.
inline void add_row_cases(std::vector<KernelCase>* cases) {
    for (const bool backward : {false, true}) {
        cases->push_back(embed_case(backward, 1, 2500, 8, 2, 0));
        cases->push_back(embed_case(backward, 3, 200, 9, 3001, 600));
        cases->push_back(embed_case(backward, 1, 40, 2056, 3, 0));
    }
    for (const NormKind kind : {NormKind::layer, NormKind::rms}) {
        const bool layer = kind == NormKind::layer;
        for (const auto& [n, d] : {std::pair<int64_t, int64_t>{19, 768}, {3, 2056}, {2, 8200}})
            cases->push_back(norm_case(n, d, kind, layer, true));
        for (const auto& [n, d] : {std::pair<int64_t, int64_t>{19, 768}, {10, 2056}})
            cases->push_back(norm_backward_case(n, d, kind, d == 768, true));
    }
    cases->push_back(norm_backward_case(9, 8200, NormKind::layer, false, true));
    cases->push_back(norm_backward_case(3080, 8, NormKind::layer, false, true));
    cases->push_back(embed_case(true, 1, 40, 1, 270001, 0));
    cases->push_back(attention_case(OpKind::rope, 1, 3, {5, 2, 128}));
    cases->push_back(select_case(3, 5, 1032));
}

inline std::vector<KernelCase> small_cases() {
    std::vector<KernelCase> cases;
    for (const bool backward : {false, true}) {
        cases.push_back(embed_case(backward, 1, 1, 1, 1, 1));
        cases.push_back(embed_case(backward, 2, 13, 37, 11, 17));
        cases.push_back(embed_case(backward, 3, 16, 64, 50, 0));
        for (const auto& [n, f] : {std::pair<int64_t, int64_t>{1, 1}, {5, 17}, {33, 64}})
            cases.push_back(swiglu_case(backward, n, f));
        cases.push_back(head_loss_case(backward, 1, 1, 2, 1));
        cases.push_back(head_loss_case(backward, 37, 19, 101, 8));
        cases.push_back(head_loss_case(backward, 64, 32, 257, 64));
        cases.push_back(head_loss_case(backward, 21, 17, 259, 16, true));
        cases.push_back(head_loss_case(backward, 23, 16, 1031, 1000));
    }
    for (const NormKind kind : {NormKind::layer, NormKind::rms}) {
        for (const auto& [n, d] :
             {std::pair<int64_t, int64_t>{1, 2}, {7, 17}, {33, 64}, {65, 771}}) {
            const bool layer = kind == NormKind::layer;
            cases.push_back(norm_case(n, d, kind, layer && d != 64, d != 17));
            cases.push_back(norm_backward_case(n, d, kind, d % 2 == 0, d != 64));
        }
    }
    add_matmul_cases(&cases);
    for (const int64_t count : {1, 15, 16, 1000, 4099})
        for (const OpKind kind :
             {OpKind::gelu, OpKind::gelu_backward, OpKind::add, OpKind::fold, OpKind::adamw})
            cases.push_back(flat_case(kind, count));
    const Heads heads[] = {{1, 1, 2}, {4, 2, 6}, {3, 3, 16}, {6, 2, 34}, {2, 1, 64}};
    for (const Heads& h : heads) {
        cases.push_back(attention_case(OpKind::rope, 2, 9, h));
        KernelCase inverse = attention_case(OpKind::rope, 1, 5, h);
        inverse.attrs.attention.inverse = 1;
        inverse.name += "_inverse";
        cases.push_back(inverse);
    }
    const Heads odd[] = {{1, 1, 1}, {4, 2, 7}, {3, 3, 13}, {6, 2, 33}, {2, 1, 64}};
    const int64_t tokens[] = {1, 5, 63, 65, 130};
    for (int i = 0; i < 5; ++i) {
        cases.push_back(attention_case(OpKind::attention, 2, tokens[i], odd[i]));
        cases.push_back(attention_case(OpKind::attention, 1, 64, odd[i]));
        cases.push_back(attention_case(OpKind::attention_backward, 2, tokens[i], odd[i]));
        cases.push_back(attention_case(OpKind::attention_backward, 1, 64, odd[i]));
        cases.push_back(attention_case(OpKind::attention_cached, 2, tokens[i], odd[i], 150));
        cases.push_back(attention_case(OpKind::attention_cached, 3, 1 + i % 4, odd[i], 97));
        cases.push_back(attention_case(OpKind::attention_cached, 2, tokens[i], odd[i], 140, 5));
    }
    cases.push_back(select_case(1, 1, 1));
    cases.push_back(select_case(3, 5, 19));
    add_row_cases(&cases);
    return cases;
}

// The same op on values of another dtype, with masters where the op needs them.
inline KernelCase in_dtype(KernelCase c, Dtype dtype) {
    c.value_dtype = dtype;
    if (dtype == Dtype::f32) return c;
    c.name += std::string("_") + dtype_name(dtype);
    if (c.kind == OpKind::adamw) c.shape[AdamwOperands::master] = c.shape[AdamwOperands::w];
    if (c.kind == OpKind::init) c.shape[InitOperands::master] = c.shape[InitOperands::w];
    if (c.kind == OpKind::digest && dtype == Dtype::bf16)
        c.shape[DigestOperands::low] = c.shape[DigestOperands::t];
    return c;
}

// Each small case in every value dtype that its op has. AdamW of 16-bit weights is not compared
// with fp64 but, bit by bit, with that of f32 (value_dtypes_test.cpp).
inline std::vector<KernelCase> small_cases_of_all_dtypes() {
    std::vector<KernelCase> cases;
    for (const Dtype dtype : {Dtype::f32, Dtype::bf16, Dtype::f16})
        for (const KernelCase& c : small_cases())
            if (kernel_table(Isa::portable).kernel[static_cast<int>(c.kind)][value_index(dtype)] !=
                    nullptr &&
                (c.kind != OpKind::adamw || dtype == Dtype::f32))
                cases.push_back(in_dtype(c, dtype));
    return cases;
}

// GPT-2 124M, B sequences of T tokens, and attention with grouped queries.
inline std::vector<KernelCase> model_cases(int64_t b, int64_t t, int64_t d, int64_t v) {
    std::vector<KernelCase> cases;
    const int64_t n = b * t, f = 4 * d;
    const Heads heads{d / 64, d / 64, 64}, grouped{d / 64, d / 256, 64};
    cases.push_back(embed_case(false, b, t, d, v, t));
    cases.push_back(embed_case(true, b, t, d, v, t));
    cases.push_back(norm_case(n, d, NormKind::layer, true, true));
    cases.push_back(norm_backward_case(n, d, NormKind::layer, true, true));
    cases.push_back(norm_case(n, d, NormKind::rms, false, true));
    cases.push_back(norm_backward_case(n, d, NormKind::rms, true, true));
    const int64_t shapes[][2] = {{d, 3 * d}, {d, d}, {d, f}, {f, d}};
    for (const auto& s : shapes) {
        cases.push_back(matmul_case(n, s[0], s[1], {true, s[1] == f, s[1] == f, s[0] == f}));
        cases.push_back(matmul_dx_case(n, s[0], s[1], false));
        cases.push_back(matmul_dw_case(n, s[0], s[1], true, true));
    }
    cases.push_back(matmul_case(1, d, f, {true, true, false, false}));
    cases.push_back(matmul_case(1, d, v, {false, false, false, false}));
    cases.push_back(matmul_case(4, d, f, {true, true, false, false}));
    cases.push_back(flat_case(OpKind::gelu, n * f));
    cases.push_back(flat_case(OpKind::gelu_backward, n * f));
    cases.push_back(swiglu_case(false, n, f));
    cases.push_back(swiglu_case(true, n, f));
    cases.push_back(attention_case(OpKind::rope, b, t, heads));
    for (const Heads& h : {heads, grouped}) {
        cases.push_back(attention_case(OpKind::attention, b, t, h));
        cases.push_back(attention_case(OpKind::attention_backward, b, t, h));
    }
    cases.push_back(attention_case(OpKind::attention_cached, 1, 1, heads, t));
    cases.push_back(attention_case(OpKind::attention_cached, 1, t / 2, heads, t));
    cases.push_back(head_loss_case(false, n, d, v, n < 512 ? n : 512));
    cases.push_back(head_loss_case(true, n, d, v, n < 512 ? n : 512));
    cases.push_back(sample_case(1, v));
    for (const OpKind kind : {OpKind::add, OpKind::fold, OpKind::grad_norm, OpKind::adamw,
                              OpKind::init, OpKind::zero, OpKind::digest})
        cases.push_back(flat_case(kind, v * d / 4));
    return cases;
}

}  // namespace plumb::testing
