#include "kernels/cpu/attention_lanes.h"
#include "kernels/cpu/block_matmul.h"
#include "kernels/cpu/kernel_list.h"

namespace plumb::cpu::PLUMB_ISA {
namespace {

// One thread's blocks in scratch.
struct Blocks {
    float* q_t;   // scale * q, transposed
    float* do_t;  // transposed
    float* dq_t;  // gradient to scale * q, transposed
    float* q;     // scale * q, rows padded to whole vectors
    float* d_o;
    float* p;   // scores, then probabilities: [key][query]
    float* ds;  // their gradients
    float* lse;
    float* delta;  // o . do per query
    int64_t row;   // of q and d_o
};

PLUMB_INLINE Blocks lay_out(float* scratch, int64_t size) {
    Blocks s;
    s.row = round_up_to(size, kLanesMax);
    s.q_t = scratch;
    s.do_t = s.q_t + size * kQueries;
    s.dq_t = s.do_t + size * kQueries;
    s.q = s.dq_t + size * kQueries;
    s.d_o = s.q + s.row * kQueries;
    s.p = s.d_o + s.row * kQueries;
    s.ds = s.p + kKeys * kQueries;
    s.lse = s.ds + kKeys * kQueries;
    s.delta = s.lse + kQueries;
    return s;
}

PLUMB_INLINE void copy_rows(const float* from, int64_t row, int64_t rows, int64_t size, float scale,
                            int64_t to_row, float* to) {
    for (int64_t i = 0; i < rows; ++i)
        for (int64_t d = 0; d < to_row; ++d)
            to[i * to_row + d] = d < size ? from[i * row + d] * scale : 0.0F;
}

struct Head {
    const float* q;  // query 0 of the sequence; rows of qkv
    const float* k;
    const float* v;
    float* dq;
    float* dk;
    float* dv;
    int64_t width;
    const float* o;  // rows of o
    const float* d_o;
    int64_t o_row;
    const float* lse;
    int64_t size;
    float scale;
};

// p = exp(s - lse), ds = p (dp - delta), for one vector of queries.
PLUMB_INLINE void score_gradients(const Blocks& s, int64_t keys, int64_t at) {
    const VecF lse = load(s.lse + at), delta = load(s.delta + at);
    for (int64_t j = 0; j < keys; ++j) {
        const VecF p = exp_of(load(s.p + j * kQueries + at) - lse);
        store(s.p + j * kQueries + at, p);
        store(s.ds + j * kQueries + at, p * (load(s.ds + j * kQueries + at) - delta));
    }
}

// One block of queries of one head against all keys they see: sets dq, adds to dk and dv.
void backward_block(const Head& x, const int32_t* segment_start, int64_t t, int64_t queries,
                    float* scratch) {
    const Blocks s = lay_out(scratch, x.size);
    const int64_t lanes = round_up_to(queries, kLanes);
    const float* q = x.q + t * x.width;
    const float* d_o = x.d_o + t * x.o_row;
    transpose_rows(q, x.width, queries, x.size, x.scale, s.q_t);
    transpose_rows(d_o, x.o_row, queries, x.size, 1.0F, s.do_t);
    copy_rows(q, x.width, queries, x.size, x.scale, s.row, s.q);
    copy_rows(d_o, x.o_row, queries, x.size, 1.0F, s.row, s.d_o);
    __builtin_memset(s.dq_t, 0, static_cast<size_t>(x.size * kQueries) * sizeof(float));
    for (int64_t i = 0; i < kQueries; ++i) {
        s.lse[i] = i < queries ? x.lse[t + i] : 0.0F;
        s.delta[i] = i < queries ? dot(x.o + (t + i) * x.o_row, d_o + i * x.o_row, x.size) : 0.0F;
    }
    KeyRanges ranges;
    const int64_t begin = segment_ranges(segment_start, t, queries, &ranges);
    for (int64_t key = begin; key < t + queries; key += kKeys) {
        const int64_t keys = lesser(kKeys, t + queries - key);
        const float* k = x.k + key * x.width;
        const float* v = x.v + key * x.width;
        block_matmul({keys, lanes, x.size, k, x.width, 1, s.q_t, kQueries, s.p, kQueries, false});
        block_matmul({keys, lanes, x.size, v, x.width, 1, s.do_t, kQueries, s.ds, kQueries, false});
        const bool masked = needs_mask(ranges, key, keys);
        for (int64_t at = 0; at < lanes; at += kLanes) {
            if (masked) mask_scores(ranges, key, keys, at, s.p);
            score_gradients(s, keys, at);
        }
        block_matmul({keys, x.size, queries, s.p, kQueries, 1, s.d_o, s.row, x.dv + key * x.width,
                      x.width, true});
        block_matmul({keys, x.size, queries, s.ds, kQueries, 1, s.q, s.row, x.dk + key * x.width,
                      x.width, true});
        block_matmul({x.size, lanes, keys, k, 1, x.width, s.ds, kQueries, s.dq_t, kQueries, true});
    }
    for (int64_t i = 0; i < queries; ++i)
        for (int64_t d = 0; d < x.size; ++d)
            x.dq[(t + i) * x.width + d] = s.dq_t[d * kQueries + i] * x.scale;
}

}  // namespace

// A thread owns a key/value head of a sequence and adds its query heads' gradients in order.
void attention_backward(const KernelArgs& args) noexcept {
    using O = AttentionBackwardOperands;
    const AttentionAttrs& a = args.attrs->attention;
    const Shape& shape = args.shape[O::qkv];
    const int64_t batch = shape.dim[0], tokens = shape.dim[1], width = last_of(shape);
    const int64_t size = a.head_size, heads = a.heads, kv_heads = a.kv_heads;
    const int64_t group = heads / kv_heads, o_row = heads * size;
    ASSERT(width == (heads + 2 * kv_heads) * size && last_of(args.shape[O::o]) == o_row);
    ASSERT(args.scratch_bytes >= args.threads * attention_backward_scratch_floats(size) * 4);
    run_team(args.threads, [&](int64_t rank, int64_t team) {
        float* scratch =
            static_cast<float*>(args.scratch) + rank * attention_backward_scratch_floats(size);
        for (int64_t task = rank; task < batch * kv_heads; task += team) {
            const int64_t b = task / kv_heads, g = task % kv_heads;
            const float* qkv = floats(args, O::qkv) + b * tokens * width;
            float* dqkv = floats(args, O::dqkv) + b * tokens * width;
            const int64_t k = (heads + g) * size, v = k + kv_heads * size;
            for (int64_t t = 0; t < tokens; ++t) {
                __builtin_memset(dqkv + t * width + k, 0, static_cast<size_t>(size) * 4);
                __builtin_memset(dqkv + t * width + v, 0, static_cast<size_t>(size) * 4);
            }
            for (int64_t h = g * group; h < (g + 1) * group; ++h) {
                const int64_t o_at = b * tokens * o_row + h * size;
                const Head head{qkv + h * size,
                                qkv + k,
                                qkv + v,
                                dqkv + h * size,
                                dqkv + k,
                                dqkv + v,
                                width,
                                floats(args, O::o) + o_at,
                                floats(args, O::d_o) + o_at,
                                o_row,
                                floats(args, O::lse) + (b * heads + h) * tokens,
                                size,
                                static_cast<float>(a.scale)};
                for (int64_t t = 0; t < tokens; t += kQueries)
                    backward_block(head, ints(args, O::segment_start) + b * tokens, t,
                                   lesser(kQueries, tokens - t), scratch);
            }
        }
    });
}

}  // namespace plumb::cpu::PLUMB_ISA
