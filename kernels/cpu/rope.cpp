#include "kernels/cpu/kernel_list.h"
#include "kernels/cpu/vec.h"

namespace plumb::cpu::PLUMB_ISA {

// Angles are computed in fp64 once per token and shared by its heads.
template <typename T>
void rope(const KernelArgs& args) noexcept {
    using O = RopeOperands;
    const AttentionAttrs& a = args.attrs->attention;
    const int64_t tokens = rows_of(args.shape[O::qkv]), width = last_of(args.shape[O::qkv]);
    const int64_t size = a.head_size, half = size / 2, heads = a.heads + a.kv_heads;
    ASSERT(width == (a.heads + 2 * a.kv_heads) * size && size % 2 == 0);
    ASSERT(args.scratch_bytes >= rope_scratch_floats(size, args.threads) * 4);
    double* frequency = static_cast<double*>(args.scratch);
    for (int64_t i = 0; i < half; ++i)
        frequency[i] =
            __builtin_pow(a.rope_theta, -2.0 * static_cast<double>(i) / static_cast<double>(size));
    float* rows = static_cast<float*>(args.scratch) + rope_frequency_floats(size);
    run_team(args.threads, [&](int64_t rank, int64_t team) {
        float* cosine = rows + rank * round_up_to(size, kLanesMax);
        float* sine = cosine + half;
        const Range range = split(tokens, 1, team, rank);
        for (int64_t t = range.begin; t < range.end; ++t) {
            const double position = static_cast<double>(ints(args, O::positions)[t]);
            for (int64_t i = 0; i < half; ++i) {
                const double angle = position * frequency[i];
                cosine[i] = static_cast<float>(__builtin_cos(angle));
                const double s = __builtin_sin(angle);
                sine[i] = static_cast<float>(a.inverse != 0 ? -s : s);
            }
            for (int64_t h = 0; h < heads; ++h) {
                T* x = values<T>(args, O::qkv) + t * width + h * size;
                for (int64_t i = 0; i < half; i += kLanes) {
                    const int64_t lanes = half - i;
                    const VecF c = load_part(cosine + i, lanes), s = load_part(sine + i, lanes);
                    const VecF p = load_part(x + i, lanes), q = load_part(x + half + i, lanes);
                    store_part(x + i, unfused(p * c) - q * s, lanes);
                    store_part(x + half + i, unfused(q * c) + p * s, lanes);
                }
            }
        }
    });
}

PLUMB_VALUE_KERNEL(rope)

}  // namespace plumb::cpu::PLUMB_ISA
