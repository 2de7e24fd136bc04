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
    float* delta;   // o . do per query
    float* wide_k;  // keys and values of fewer bits, widened
    float* wide_v;
    int64_t row;  // of q and d_o
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
    s.wide_k = s.delta + 3 * kQueries;
    s.wide_v = s.wide_k + s.row * kKeys;
    return s;
}

template <typename T>
PLUMB_INLINE void copy_rows(const T* from, int64_t row, int64_t rows, int64_t size, float scale,
                            int64_t to_row, float* to) {
    for (int64_t i = 0; i < rows; ++i)
        for (int64_t d = 0; d < to_row; d += kLanes)
            store(to + i * to_row + d,
                  load_part(from + i * row + d, greater(size - d, 0)) * splat(scale));
}

template <typename T>
struct Head {
    const T* q;  // query 0 of the sequence; rows of qkv
    const T* k;
    const T* v;
    T* dq;
    int64_t width;
    float* dk;  // sums over the queries: in dqkv if that is float, otherwise in scratch
    float* dv;
    int64_t sum_row;
    const T* o;  // rows of o
    const T* d_o;
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
template <typename T>
void backward_block(const Head<T>& x, const int32_t* segment_start, int64_t t, int64_t queries,
                    float* scratch) {
    const Blocks s = lay_out(scratch, x.size);
    const int64_t lanes = round_up_to(queries, kLanes);
    const T* q = x.q + t * x.width;
    const T* d_o = x.d_o + t * x.o_row;
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
        const FloatRows k = float_rows(x.k + key * x.width, x.width, keys, x.size, s.wide_k);
        const FloatRows v = float_rows(x.v + key * x.width, x.width, keys, x.size, s.wide_v);
        block_matmul({keys, lanes, x.size, k.at, k.row, 1, s.q_t, kQueries, s.p, kQueries, false});
        block_matmul(
            {keys, lanes, x.size, v.at, v.row, 1, s.do_t, kQueries, s.ds, kQueries, false});
        const bool masked = needs_mask(ranges, key, keys);
        for (int64_t at = 0; at < lanes; at += kLanes) {
            if (masked) mask_scores(ranges, key, keys, at, s.p);
            score_gradients(s, keys, at);
        }
        block_matmul({keys, x.size, queries, s.p, kQueries, 1, s.d_o, s.row, x.dv + key * x.sum_row,
                      x.sum_row, true});
        block_matmul({keys, x.size, queries, s.ds, kQueries, 1, s.q, s.row, x.dk + key * x.sum_row,
                      x.sum_row, true});
        block_matmul({x.size, lanes, keys, k.at, 1, k.row, s.ds, kQueries, s.dq_t, kQueries, true});
    }
    for (int64_t i = 0; i < queries; ++i)
        transpose_back(s.dq_t, i, x.size, x.scale, x.dq + (t + i) * x.width);
}

// Where the rows of dk and dv are summed, and how the sums become dqkv.
PLUMB_INLINE float* sums_of(float* rows, float*) {
    return rows;
}
template <typename T>
PLUMB_INLINE float* sums_of(T*, float* scratch) {
    return scratch;
}
PLUMB_INLINE void round_sums(const float*, int64_t, int64_t, float*, int64_t) {}
template <typename T>
PLUMB_INLINE void round_sums(const float* sums, int64_t rows, int64_t size, T* to, int64_t width) {
    for (int64_t t = 0; t < rows; ++t)
        for (int64_t d = 0; d < size; d += kLanes)
            store_part(to + t * width + d, load_part(sums + t * size + d, size - d), size - d);
}

}  // namespace

// A thread owns a key/value head of a sequence and adds its query heads' gradients in order, in
// fp32: dk and dv of fewer bits are summed in scratch and rounded once.
template <typename T>
void attention_backward(const KernelArgs& args) noexcept {
    using O = AttentionBackwardOperands;
    const AttentionAttrs& a = args.attrs->attention;
    const Shape& shape = args.shape[O::qkv];
    const int64_t batch = shape.dim[0], tokens = shape.dim[1], width = last_of(shape);
    const int64_t size = a.head_size, heads = a.heads, kv_heads = a.kv_heads;
    const int64_t group = heads / kv_heads, o_row = heads * size;
    ASSERT(width == (heads + 2 * kv_heads) * size && last_of(args.shape[O::o]) == o_row);
    constexpr bool kNarrow = sizeof(T) < sizeof(float);
    const int64_t floats_each = attention_backward_scratch_floats(size, tokens, kNarrow);
    ASSERT(args.scratch_bytes >= args.threads * floats_each * 4);
    run_team(args.threads, [&](int64_t rank, int64_t team) {
        float* scratch = static_cast<float*>(args.scratch) + rank * floats_each;
        float* sums = scratch + attention_backward_block_floats(size, kNarrow);
        for (int64_t task = rank; task < batch * kv_heads; task += team) {
            const int64_t b = task / kv_heads, g = task % kv_heads;
            const T* qkv = values<T>(args, O::qkv) + b * tokens * width;
            T* dqkv = values<T>(args, O::dqkv) + b * tokens * width;
            const int64_t k = (heads + g) * size, v = k + kv_heads * size;
            float* dk = sums_of(dqkv + k, sums);
            float* dv = sums_of(dqkv + v, sums + tokens * size);
            const int64_t sum_row = kNarrow ? size : width;
            for (int64_t t = 0; t < tokens; ++t) {
                __builtin_memset(dk + t * sum_row, 0, static_cast<size_t>(size) * 4);
                __builtin_memset(dv + t * sum_row, 0, static_cast<size_t>(size) * 4);
            }
            for (int64_t h = g * group; h < (g + 1) * group; ++h) {
                const int64_t o_at = b * tokens * o_row + h * size;
                const Head<T> head{qkv + h * size,
                                   qkv + k,
                                   qkv + v,
                                   dqkv + h * size,
                                   width,
                                   dk,
                                   dv,
                                   sum_row,
                                   values<T>(args, O::o) + o_at,
                                   values<T>(args, O::d_o) + o_at,
                                   o_row,
                                   floats(args, O::lse) + (b * heads + h) * tokens,
                                   size,
                                   static_cast<float>(a.scale)};
                for (int64_t t = 0; t < tokens; t += kQueries)
                    backward_block(head, ints(args, O::segment_start) + b * tokens, t,
                                   lesser(kQueries, tokens - t), scratch);
            }
            round_sums(dk, tokens, size, dqkv + k, width);
            round_sums(dv, tokens, size, dqkv + v, width);
        }
    });
}

PLUMB_VALUE_KERNEL(attention_backward)

}  // namespace plumb::cpu::PLUMB_ISA
