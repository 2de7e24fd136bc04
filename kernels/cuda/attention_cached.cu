#include "kernels/cuda/attention_decode.h"
#include "kernels/cuda/kernel_list.h"

namespace plumb::cuda {

namespace {

constexpr int kStoreThreads = 256;

// Copies k and v of every token to its position; a block takes tokens in turn.
template <typename T>
__global__ void __launch_bounds__(kStoreThreads)
    store_cache(AttentionView<T> x, NewTokens<T> added) {
    const bool packed = x.size % kPack<T> == 0;
    const int64_t step = packed ? kPack<T> : 1;
    for (int64_t n = blockIdx.x; n < x.batch * x.tokens; n += gridDim.x) {
        const int64_t position = x.positions[n];
        if (position < 0 || position >= x.kv_tokens) continue;
        const int64_t to = (sequence_of(x, n / x.tokens) * x.kv_tokens + position) * x.kv_row;
        for (int64_t d = threadIdx.x * step; d < x.kv_row; d += kStoreThreads * step) {
            const Pack<T> k = load_step(added.k + n * added.row + d, packed);
            const Pack<T> v = load_step(added.v + n * added.row + d, packed);
            store_step(added.k_cache + to + d, k, packed);
            store_step(added.v_cache + to + d, v, packed);
        }
    }
}

template <typename T>
void decode(const AttentionView<T>& x, const NewTokens<T>& added, const KernelArgs& args) {
    const int64_t rows = x.batch * x.tokens * x.heads;
    const DecodeParts parts = decode_parts(args.scratch, rows, x.kv_tokens, x.size);
    launch<decode_part<T>>({x.batch * x.kv_heads * parts.parts, kDecodeThreads, args.stream,
                            decode_shared_bytes(x.size, kPack<T>)},
                           x, added, parts);
    launch<decode_sum<T>>(
        {rows, kDecodeThreads, args.stream, kDecodeThreads * int64_t{sizeof(float)}}, x, parts);
}

template <typename T>
void attention_cached(const KernelArgs& args) noexcept {
    using O = AttentionCachedOperands;
    const Shape& cache = args.shape[O::k_cache];
    AttentionView<T> x = training_view<T>(args, args.shape[O::qkv], args.at<T>(O::qkv));
    const NewTokens<T> added{x.k, x.v, x.q_row, args.at<T>(O::k_cache), args.at<T>(O::v_cache)};
    x.k = added.k_cache;
    x.v = added.v_cache;
    x.kv_row = static_cast<int64_t>(x.kv_heads) * x.size;
    x.kv_tokens = cache.dim[1];
    x.positions = args.at<int32_t>(O::positions);
    x.sequences = args.at<int32_t>(O::sequences);
    x.o = args.at<T>(O::o);
    const int64_t rows = x.batch * x.tokens;
    ASSERT(args.shape[O::o].elements() == rows * x.heads * x.size);
    ASSERT(cache.dim[2] * cache.dim[3] == x.kv_row && args.shape[O::v_cache] == cache);
    ASSERT(args.scratch_bytes >=
           attention_cached_scratch_bytes(x.tokens, rows * x.heads, x.kv_tokens, x.size));
    if (x.tokens <= kDecodeTokens) {
        decode(x, added, args);
        return;
    }
    constexpr int64_t kBlocksMax = 65536;
    launch<store_cache<T>>({rows < kBlocksMax ? rows : kBlocksMax, kStoreThreads, args.stream}, x,
                           added);
    attend(x, args.stream);
}

}  // namespace

void add_attention_cached(KernelTable& table) noexcept {
    set_kernels(table, OpKind::attention_cached, attention_cached<float>, attention_cached<Bf16>,
                attention_cached<F16>);
}

}  // namespace plumb::cuda
