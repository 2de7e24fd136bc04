#include "kernels/cpu/attention_block.h"
#include "kernels/cpu/attention_lanes.h"
#include "kernels/cpu/block_matmul.h"
#include "kernels/cpu/kernel_list.h"

namespace plumb::cpu::PLUMB_ISA {
namespace {

// Running maximum and sum of exponentials per query.
struct Running {
    float* max;
    float* sum;
};

// Scores of one block of keys -> exp(score - max), and everything so far rescaled to the new max.
PLUMB_INLINE void softmax_step(float* scores, int64_t keys, int64_t at, const Running& run,
                               float* o_t, int64_t head_size) {
    VecF peak = load(run.max + at);
    for (int64_t j = 0; j < keys; ++j) peak = max_of(load(scores + j * kQueries + at), peak);
    // A query that has seen no key yet keeps -inf; exp(-inf - 0) is 0 where -inf - -inf is not.
    const VecF base = peak == splat(-__builtin_inff()) ? VecF{} : peak;
    const VecF shrink = exp_of(load(run.max + at) - base);
    VecF sum = load(run.sum + at) * shrink;
    for (int64_t j = 0; j < keys; ++j) {
        const VecF p = exp_of(load(scores + j * kQueries + at) - base);
        store(scores + j * kQueries + at, p);
        sum += p;
    }
    store(run.sum + at, sum);
    store(run.max + at, peak);
    for (int64_t d = 0; d < head_size; ++d)
        store(o_t + d * kQueries + at, load(o_t + d * kQueries + at) * shrink);
}

}  // namespace

template <typename T>
void attend_block(const AttentionBlock<T>& x, const KeyRanges& ranges, float* scratch) noexcept {
    const int64_t size = x.head_size;
    const int64_t lanes = round_up_to(x.queries, kLanes);
    float* q_t = scratch;
    float* o_t = q_t + size * kQueries;
    float* scores = o_t + size * kQueries;
    const Running run{scores + kKeys * kQueries, scores + (kKeys + 1) * kQueries};
    float* wide = scores + (kKeys + 4) * kQueries;
    transpose_rows(x.q, x.q_row, x.queries, size, x.scale, q_t);
    __builtin_memset(o_t, 0, static_cast<size_t>(size * kQueries) * sizeof(float));
    for (int64_t i = 0; i < kQueries; ++i) {
        run.max[i] = -__builtin_inff();
        run.sum[i] = 0.0F;
    }
    for (int64_t key = x.key_begin; key < x.key_end; key += kKeys) {
        const int64_t keys = lesser(kKeys, x.key_end - key);
        const FloatRows k = float_rows(x.k + key * x.kv_row, x.kv_row, keys, size, wide);
        block_matmul({keys, lanes, size, k.at, k.row, 1, q_t, kQueries, scores, kQueries, false});
        const bool masked = needs_mask(ranges, key, keys);
        for (int64_t at = 0; at < lanes; at += kLanes) {
            if (masked) mask_scores(ranges, key, keys, at, scores);
            softmax_step(scores, keys, at, run, o_t, size);
        }
        const FloatRows v = float_rows(x.v + key * x.kv_row, x.kv_row, keys, size, wide);
        block_matmul({size, lanes, keys, v.at, 1, v.row, scores, kQueries, o_t, kQueries, true});
    }
    for (int64_t i = 0; i < x.queries; ++i) {
        const float inverse = run.sum[i] > 0.0F ? 1.0F / run.sum[i] : run.sum[i];
        transpose_back(o_t, i, size, inverse, x.o + i * x.o_row);
        if (x.lse != nullptr)
            x.lse[i] = static_cast<float>(static_cast<double>(run.max[i]) +
                                          __builtin_log(static_cast<double>(run.sum[i])));
    }
}

template <typename T>
void attention(const KernelArgs& args) noexcept {
    using O = AttentionOperands;
    const AttentionAttrs& a = args.attrs->attention;
    const Shape& shape = args.shape[O::qkv];
    const int64_t batch = shape.dim[0], tokens = shape.dim[1], width = last_of(shape);
    const int64_t size = a.head_size, heads = a.heads, group = heads / a.kv_heads;
    ASSERT(width == (heads + 2 * a.kv_heads) * size && heads % a.kv_heads == 0);
    const int64_t floats_each = attention_scratch_floats(size, sizeof(T) < sizeof(float));
    ASSERT(args.scratch_bytes >= args.threads * floats_each * 4);
    const int64_t blocks = (tokens + kQueries - 1) / kQueries;
    run_team(args.threads, [&](int64_t rank, int64_t team) {
        float* scratch = static_cast<float*>(args.scratch) + rank * floats_each;
        for (int64_t task = rank; task < batch * heads * blocks; task += team) {
            const int64_t b = task / blocks / heads, h = task / blocks % heads;
            // Later queries see more keys: odd heads go backwards so that turns even out.
            const int64_t turn = task % blocks, block = h % 2 == 0 ? turn : blocks - 1 - turn;
            const int64_t t = block * kQueries, queries = lesser(kQueries, tokens - t);
            KeyRanges ranges;
            const int64_t begin =
                segment_ranges(ints(args, O::segment_start) + b * tokens, t, queries, &ranges);
            const T* qkv = values<T>(args, O::qkv) + b * tokens * width;
            const T* k = qkv + (heads + h / group) * size;
            float* lse = floats(args, O::lse);
            const AttentionBlock<T> x{
                qkv + t * width + h * size,
                width,
                queries,
                k,
                k + a.kv_heads * size,
                width,
                size,
                static_cast<float>(a.scale),
                begin,
                t + queries,
                values<T>(args, O::o) + (b * tokens + t) * heads * size + h * size,
                heads * size,
                lse == nullptr ? nullptr : lse + (b * heads + h) * tokens + t};
            attend_block(x, ranges, scratch);
        }
    });
}

template void attend_block(const AttentionBlock<float>&, const KeyRanges&, float*) noexcept;
template void attend_block(const AttentionBlock<Bf16>&, const KeyRanges&, float*) noexcept;
template void attend_block(const AttentionBlock<F16>&, const KeyRanges&, float*) noexcept;
PLUMB_VALUE_KERNEL(attention)

}  // namespace plumb::cpu::PLUMB_ISA
