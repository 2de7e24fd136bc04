#include "kernels/cuda/integer_sum.h"
#include "kernels/cuda/kernel_list.h"
#include "kernels/cuda/master.h"
#include "runtime/base/digest.h"
#include "runtime/base/random.h"

namespace plumb::cuda {

namespace {

constexpr int kThreads = 256;

template <typename T>
__global__ void __launch_bounds__(kThreads)
    init_masters(T* w, typename Masters<T>::Kept* kept, StateAttrs a, int64_t count) {
    for_each_pack<float>(count, [&](int64_t first, int n) {
        Four<float> master;
        for (int k = 0; k < kFour; ++k) {
            const auto element = static_cast<uint64_t>(a.first + first + k);
            master.value[k] =
                static_cast<float>(a.std == 0.0 ? a.value : a.std * random_normal(a.key, element));
        }
        Masters<T>::store(w, kept, first, master, n);
    });
}

template <typename T>
void init(const KernelArgs& args) noexcept {
    using O = InitOperands;
    const int64_t count = args.shape[O::w].elements();
    ASSERT(!args.has(O::master) || args.shape[O::master].elements() == count);
    launch<init_masters<T>>({pack_blocks(count, kFour, kThreads), kThreads, args.stream},
                            args.at<T>(O::w), args.at<typename Masters<T>::Kept>(O::master),
                            args.attrs->state, count);
}

__global__ void __launch_bounds__(kThreads) zero_packs(float* t, int64_t count) {
    for_each_pack<float>(count, [&](int64_t i, int n) { store_some(t + i, Pack<float>{}, n); });
}

void zero(const KernelArgs& args) noexcept {
    using O = ZeroOperands;
    const int64_t count = args.shape[O::t].elements();
    launch<zero_packs>({pack_blocks(count, kPack<float>, kThreads), kThreads, args.stream},
                       args.at<float>(O::t), count);
}

// The 32-bit patterns of four elements.
__device__ __forceinline__ Four<uint32_t> patterns_of(const float* t, const uint16_t*, int64_t i,
                                                      int n) {
    const Four<float> value = load_four(t + i, n);
    Four<uint32_t> bits;
    for (int k = 0; k < kFour; ++k) bits.value[k] = bits_of(value.value[k]);
    return bits;
}
__device__ __forceinline__ Four<uint32_t> patterns_of(const Bf16* t, const uint16_t* low, int64_t i,
                                                      int n) {
    const Four<Bf16> high = load_four(t + i, n);
    const Four<uint16_t> rest = load_four(low + i, n);
    Four<uint32_t> bits;
    for (int k = 0; k < kFour; ++k)
        bits.value[k] = join_master({high.value[k].bits, rest.value[k]});
    return bits;
}

template <typename T>
__global__ void __launch_bounds__(kSumThreads)
    sum_terms(uint64_t* partial, const T* t, const uint16_t* low, uint64_t key, int64_t first,
              int64_t count) {
    Uint128 sum = 0;
    const auto load = [&](int64_t i, int n) { return patterns_of(t, low, i, n); };
    for_each_four(count, load, [&](int64_t i, int n, const Four<uint32_t>& bits) {
        const uint64_t place = digest_place(key, first + i);
        for (int k = 0; k < kFour; ++k) {
            if (k >= n) continue;
            const Hash128 term =
                digest_term(place + static_cast<uint64_t>(k) * kDigestStep, bits.value[k]);
            sum += (static_cast<Uint128>(term.high) << 64) | term.low;
        }
    });
    SumParts<kLimbs> parts;
    split_limbs(sum, parts.part);
    store_partial(parts, partial);
}

__global__ void __launch_bounds__(kSumThreads)
    settle_digest(uint64_t* out, const uint64_t* partial, int64_t blocks, bool begin) {
    const uint64_t* parts = sum_partials<kLimbs>(partial, blocks);
    if (threadIdx.x != 0) return;
    uint64_t above = 0;  // the sum is modulo 2^128
    Uint128 sum = join_limbs(parts, &above);
    if (!begin) sum += (static_cast<Uint128>(out[1]) << 64) | out[0];
    out[0] = static_cast<uint64_t>(sum);
    out[1] = static_cast<uint64_t>(sum >> 64);
}

template <typename T>
void digest(const KernelArgs& args) noexcept {
    using O = DigestOperands;
    const StateAttrs& a = args.attrs->state;
    const int64_t count = args.shape[O::t].elements();
    const int64_t blocks = sum_blocks(count);
    ASSERT(args.shape[O::digest].elements() == 2 && args.scratch_bytes >= sum_scratch_bytes(count));
    constexpr int64_t kShared = kSumSharedBytes<kLimbs>;
    uint64_t* partial = static_cast<uint64_t*>(args.scratch);
    launch<sum_terms<T>>({blocks, kSumThreads, args.stream, kShared}, partial,
                         static_cast<const T*>(args.at<T>(O::t)),
                         static_cast<const uint16_t*>(args.at<uint16_t>(O::low)), a.key, a.first,
                         count);
    launch<settle_digest>({1, kSumThreads, args.stream, kShared}, args.at<uint64_t>(O::digest),
                          static_cast<const uint64_t*>(partial), blocks, a.begin != 0);
}

}  // namespace

void add_state(KernelTable& table) noexcept {
    set_kernels(table, OpKind::init, init<float>, init<Bf16>, init<F16>);
    set_kernels(table, OpKind::zero, zero);
    set_kernels(table, OpKind::digest, digest<float>, digest<Bf16>);
}

}  // namespace plumb::cuda
