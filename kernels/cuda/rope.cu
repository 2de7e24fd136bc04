#include "kernels/cuda/kernel_list.h"
#include "kernels/cuda/math.h"
#include "kernels/cuda/values.h"

namespace plumb::cuda {

namespace {

constexpr int kThreads = 256;
// Tokens of a block: enough to share the powers of theta, few enough to fill a GPU.
constexpr int kTokens = 4;

struct Rope {
    int64_t tokens;
    int64_t width;  // of a token in qkv
    double theta;
    int heads;  // of q and k
    int size;   // K
    bool inverse;
};

// Shared memory: inverse frequencies (f64), then for each token cosines and sines (f32).
constexpr int64_t rope_shared_bytes(int64_t half) {
    return half * 8 + kTokens * 2 * half * 4;
}

// Angles are computed in fp64 once per token and shared by its heads.
__device__ __forceinline__ void make_angles(double* frequency, float* cosine, float* sine,
                                            const int32_t* positions, int tokens, const Rope& a) {
    const int half = a.size / 2, self = static_cast<int>(threadIdx.x);
    for (int i = self; i < half; i += kThreads)
        frequency[i] = pow(a.theta, -2.0 * static_cast<double>(i) / static_cast<double>(a.size));
    __syncthreads();
    for (int i = self; i < tokens * half; i += kThreads) {
        const double angle = static_cast<double>(positions[i / half]) * frequency[i % half];
        cosine[i] = static_cast<float>(cos(angle));
        const double s = sin(angle);
        sine[i] = static_cast<float>(a.inverse ? -s : s);
    }
    __syncthreads();
}

template <typename T, int kStep>
__global__ void __launch_bounds__(kThreads)
    rotate_heads(T* qkv, const int32_t* __restrict__ positions, Rope a) {
    const int half = a.size / 2, parts = half / kStep;  // of a head, each one thread's
    auto* frequency = reinterpret_cast<double*>(block_shared());
    auto* cosine = reinterpret_cast<float*>(frequency + half);
    float* sine = cosine + kTokens * half;
    const int64_t first = static_cast<int64_t>(blockIdx.x) * kTokens;
    const int tokens = static_cast<int>(a.tokens - first < kTokens ? a.tokens - first : kTokens);
    make_angles(frequency, cosine, sine, positions + first, tokens, a);
    const int token_parts = a.heads * parts;
#pragma unroll 2
    for (int n = static_cast<int>(threadIdx.x); n < tokens * token_parts; n += kThreads) {
        const int token = n / token_parts, head = n % token_parts / parts;
        const int i = n % parts * kStep;
        T* x = qkv + (first + token) * a.width + static_cast<int64_t>(head) * a.size + i;
        Pack<T> p = load_some(x, kStep), q = load_some(x + half, kStep);
        for (int k = 0; k < kStep; ++k) {
            const float c = cosine[token * half + i + k], s = sine[token * half + i + k];
            const float u = widen(p.value[k]), v = widen(q.value[k]);
            // As on the CPU, the product with the sine is the one that is fused.
            p.value[k] = narrow<T>(fmaf(-v, s, u * c));
            q.value[k] = narrow<T>(fmaf(u, s, v * c));
        }
        store_some(x, p, kStep);
        store_some(x + half, q, kStep);
    }
}

template <typename T>
void rope(const KernelArgs& args) noexcept {
    using O = RopeOperands;
    const AttentionAttrs& a = args.attrs->attention;
    const int64_t tokens = args.shape[O::qkv].rows(), width = args.shape[O::qkv].last();
    const int64_t half = a.head_size / 2;
    ASSERT(width == int64_t{a.heads + 2 * a.kv_heads} * a.head_size && a.head_size % 2 == 0);
    ASSERT(args.shape[O::positions].elements() == tokens);
    const Launch at{ceil_div(tokens, kTokens), kThreads, args.stream, rope_shared_bytes(half)};
    const Rope rope{tokens, width, a.rope_theta, a.heads + a.kv_heads, a.head_size, a.inverse != 0};
    const auto* positions = static_cast<const int32_t*>(args.at<int32_t>(O::positions));
    if (half % kPack<T> == 0)
        launch<rotate_heads<T, kPack<T>>>(at, args.at<T>(O::qkv), positions, rope);
    else
        launch<rotate_heads<T, 1>>(at, args.at<T>(O::qkv), positions, rope);
}

}  // namespace

void add_rope(KernelTable& table) noexcept {
    set_kernels(table, OpKind::rope, rope<float>, rope<Bf16>, rope<F16>);
}

}  // namespace plumb::cuda
