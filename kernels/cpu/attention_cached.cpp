#include "kernels/cpu/attention_lanes.h"
#include "kernels/cpu/kernel_list.h"

namespace plumb::cpu::PLUMB_ISA {
namespace {

// Where one query's output is summed.
PLUMB_INLINE float* sum_of(float* o, float*) {
    return o;
}
template <typename T>
PLUMB_INLINE float* sum_of(T*, float* scratch) {
    return scratch;
}

// One query (decode): reads each key and value once; vectors run over the head.
template <typename T>
void attend_one(const AttentionBlock<T>& x, float* scratch) {
    const int64_t size = x.head_size;
    float max = -__builtin_inff(), total = 0.0F;
    float* out = sum_of(x.o, scratch);
    for (int64_t d = 0; d < size; ++d) out[d] = 0.0F;
    for (int64_t key = 0; key < x.key_end; key += kKeys) {
        const int64_t keys = lesser(kKeys, x.key_end - key);
        alignas(64) float p[kKeys];
        float peak = max;
        for (int64_t j = 0; j < kKeys; ++j) {
            p[j] =
                j < keys ? dot(x.q, x.k + (key + j) * x.kv_row, size) * x.scale : -__builtin_inff();
            peak = p[j] > peak ? p[j] : peak;
        }
        const float shrink = exp_of(splat(max - peak))[0];
        VecF sum{};
        for (int64_t j = 0; j < kKeys; j += kLanes) {
            const VecF e = exp_of(load(p + j) - splat(peak));
            store(p + j, e);
            sum += e;
        }
        total = total * shrink + sum_lanes(sum);
        max = peak;
        for (int64_t d = 0; d < size; d += kLanes) {
            const int64_t lanes = size - d;
            VecF o = load_part(out + d, lanes) * splat(shrink);
            const T* v = x.v + key * x.kv_row + d;
            for (int64_t j = 0; j < keys; ++j)
                o += splat(p[j]) * load_part(v + j * x.kv_row, lanes);
            store_part(out + d, o, lanes);
        }
    }
    const float inverse = x.key_end <= 0 ? 0.0F : 1.0F / total;
    for (int64_t d = 0; d < size; d += kLanes)
        store_part(x.o + d, load_part(out + d, size - d) * splat(inverse), size - d);
}

struct CachedShape {
    int64_t batch, tokens, width, heads, kv_heads, size, cache_tokens;
};

// Which sequence of the cache row b is.
int64_t sequence_of(const KernelArgs& args, int64_t b) {
    using O = AttentionCachedOperands;
    if (args.data[O::sequences] == nullptr) return b;
    const int64_t sequence = ints(args, O::sequences)[b];
    CHECK_NOTE(sequence >= 0 && sequence < args.shape[O::k_cache].dim[0],
               "sequence outside the cache");
    return sequence;
}

// Copies k and v of every token to its position.
template <typename T>
void store_cache(const KernelArgs& args, const CachedShape& s) {
    using O = AttentionCachedOperands;
    const int64_t row = s.kv_heads * s.size;
    const size_t row_bytes = static_cast<size_t>(row) * sizeof(T);
    run_team(args.threads, [&](int64_t rank, int64_t team) {
        const Range range = split(s.batch * s.tokens, 1, team, rank);
        for (int64_t i = range.begin; i < range.end; ++i) {
            const int64_t position = ints(args, O::positions)[i];
            CHECK_NOTE(position < s.cache_tokens, "position beyond the cache");
            if (position < 0) continue;
            const T* k = values<T>(args, O::qkv) + i * s.width + s.heads * s.size;
            const int64_t sequence = sequence_of(args, i / s.tokens);
            const int64_t to = (sequence * s.cache_tokens + position) * row;
            __builtin_memcpy(values<T>(args, O::k_cache) + to, k, row_bytes);
            __builtin_memcpy(values<T>(args, O::v_cache) + to, k + row, row_bytes);
        }
    });
}

// Queries t .. t + queries of sequence b, head h; one by one where they are few (decode).
template <typename T>
void attend_cached(const KernelArgs& args, const CachedShape& s, int64_t b, int64_t h, int64_t t,
                   int64_t queries, float* scratch) {
    using O = AttentionCachedOperands;
    const int32_t* positions = ints(args, O::positions) + b * s.tokens + t;
    KeyRanges ranges;
    int64_t key_end = 0;
    for (int64_t i = 0; i < queries; ++i) {
        ranges.low[i] = 0;
        ranges.high[i] = positions[i] < 0 ? -1 : positions[i];
        key_end = greater(key_end, ranges.high[i] + 1);
    }
    finish_ranges(queries, &ranges);
    const int64_t row = s.kv_heads * s.size, o_row = s.heads * s.size;
    const int64_t at =
        sequence_of(args, b) * s.cache_tokens * row + h / (s.heads / s.kv_heads) * s.size;
    const AttentionBlock<T> x{values<T>(args, O::qkv) + (b * s.tokens + t) * s.width + h * s.size,
                              s.width,
                              queries,
                              values<T>(args, O::k_cache) + at,
                              values<T>(args, O::v_cache) + at,
                              row,
                              s.size,
                              static_cast<float>(args.attrs->attention.scale),
                              0,
                              key_end,
                              values<T>(args, O::o) + (b * s.tokens + t) * o_row + h * s.size,
                              o_row,
                              nullptr};
    if (s.tokens <= kAttentionStreamQueries)
        attend_one(x, scratch);
    else
        attend_block(x, ranges, scratch);
}

}  // namespace

template <typename T>
void attention_cached(const KernelArgs& args) noexcept {
    using O = AttentionCachedOperands;
    const AttentionAttrs& a = args.attrs->attention;
    const Shape& shape = args.shape[O::qkv];
    const CachedShape s{shape.dim[0],
                        shape.dim[1],
                        last_of(shape),
                        a.heads,
                        a.kv_heads,
                        a.head_size,
                        args.shape[O::k_cache].dim[1]};
    ASSERT(s.width == (s.heads + 2 * s.kv_heads) * s.size && s.heads % s.kv_heads == 0);
    store_cache<T>(args, s);
    const int64_t floats_each =
        attention_cached_scratch_floats(s.size, s.tokens, sizeof(T) < sizeof(float));
    ASSERT(args.scratch_bytes >= args.threads * floats_each * 4);
    const int64_t step = s.tokens <= kAttentionStreamQueries ? 1 : kQueries;
    const int64_t blocks = (s.tokens + step - 1) / step;
    run_team(args.threads, [&](int64_t rank, int64_t team) {
        float* scratch = static_cast<float*>(args.scratch) + rank * floats_each;
        for (int64_t task = rank; task < s.batch * s.heads * blocks; task += team) {
            const int64_t t = task % blocks * step;
            attend_cached<T>(args, s, task / blocks / s.heads, task / blocks % s.heads, t,
                             lesser(step, s.tokens - t), scratch);
        }
    });
}

PLUMB_VALUE_KERNEL(attention_cached)

}  // namespace plumb::cpu::PLUMB_ISA
