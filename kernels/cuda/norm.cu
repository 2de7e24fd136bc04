#include "kernels/cuda/kernel_list.h"
#include "kernels/cuda/math.h"
#include "kernels/cuda/scratch.h"
#include "kernels/cuda/values.h"

namespace plumb::cuda {

namespace {

constexpr int kBlockMax = 1024;
// norm_backward: a thread of a warp that has a row holds four packs of it (32 values of 16 bits)
// and as many sums for gamma and for beta, for which 12 warps are as many as have registers; a
// thread of a block that has a row holds two packs.
constexpr int kWarpsThreads = 384;
constexpr int kBlockThreads = 512;
constexpr int kLongThreads = 256;

// A thread's part of a row of values: `kHeld` packs in registers, of which thread t of a group of g
// has packs t, t + g, ...; or, when kHeld is 0, read again in every pass, for rows that are too
// long or do not start on packs. each() calls body(i, pack, n, slot): n values at element i.
template <typename T, size_t kHeld>
struct RowPart {
    Pack<T> pack[kHeld];

    __device__ __forceinline__ void load(const T* row, int64_t size, int self, int group) {
#pragma unroll
        for (size_t k = 0; k < kHeld; ++k) {
            const int64_t i = (self + static_cast<int64_t>(k) * group) * kPack<T>;
            if (i < size) pack[k] = load_pack(row + i);
        }
    }
    template <typename Body>
    __device__ __forceinline__ void each(int64_t size, int self, int group,
                                         const Body& body) const {
#pragma unroll
        for (size_t k = 0; k < kHeld; ++k) {
            const int64_t i = (self + static_cast<int64_t>(k) * group) * kPack<T>;
            if (i < size) body(i, pack[k], kPack<T>, static_cast<int>(k));
        }
    }
};
template <typename T>
struct RowPart<T, 0> {
    const T* from;

    __device__ __forceinline__ void load(const T* row, int64_t, int, int) { from = row; }
    template <int kStep, typename Body>
    __device__ __forceinline__ void each_step(int64_t size, int self, int group,
                                              const Body& body) const {
        for (int64_t i = self * kStep; i < size; i += group * kStep)
            body(i, load_some(from + i, kStep), kStep, 0);
    }
    template <typename Body>
    __device__ __forceinline__ void each(int64_t size, int self, int group,
                                         const Body& body) const {
        if (size % kPack<T> == 0)
            each_step<kPack<T>>(size, self, group, body);
        else
            each_step<1>(size, self, group, body);
    }
};

// n floats, 1 or as many as a pack of T has values.
template <typename T>
struct Floats {
    float value[kPack<T>];

    __device__ __forceinline__ Floats(const float* from, int n) {
        if (n == 1) {
            value[0] = *from;
            return;
        }
        for (int k = 0; k < kPack<T>; k += kPack<float>) {
            const Pack<float> pack = load_pack(from + k);
            for (int j = 0; j < kPack<float>; ++j) value[k + j] = pack.value[j];
        }
    }
};
// to[k] = value[k], or += value[k].
template <typename T>
__device__ __forceinline__ void store_floats(float* to, const float (&value)[kPack<T>], int n,
                                             bool add) {
    if (n == 1) {
        *to = add ? *to + value[0] : value[0];
        return;
    }
    for (int k = 0; k < kPack<T>; k += kPack<float>) {
        Pack<float> pack = {};
        if (add) pack = load_pack(to + k);
        for (int j = 0; j < kPack<float>; ++j)
            pack.value[j] = add ? pack.value[j] + value[k + j] : value[k + j];
        store_pack(to + k, pack);
    }
}

template <typename T>
struct Norm {
    T* y;
    float* stats;  // optional
    const T* x;
    const float* gamma;
    const float* beta;  // optional
    int64_t rows;
    int64_t size;
    double eps;
    bool layer;
};

// A block for each row at a time.
template <typename T, int kHeld>
__global__ void __launch_bounds__(kBlockMax) norm_rows(Norm<T> a) {
    auto* shared = reinterpret_cast<float*>(block_shared());
    const int self = static_cast<int>(threadIdx.x), group = static_cast<int>(blockDim.x);
    for (int64_t row = blockIdx.x; row < a.rows; row += gridDim.x) {
        RowPart<T, kHeld> x;
        x.load(a.x + row * a.size, a.size, self, group);
        float mean = 0;
        if (a.layer) {
            float sum = 0;
            x.each(a.size, self, group, [&](int64_t, const Pack<T>& pack, int n, int) {
                for (int k = 0; k < n; ++k) sum += widen(pack.value[k]);
            });
            mean = block_sum(sum, shared) / static_cast<float>(a.size);
        }
        float squares = 0;
        x.each(a.size, self, group, [&](int64_t, const Pack<T>& pack, int n, int) {
            for (int k = 0; k < n; ++k) {
                const float d = widen(pack.value[k]) - mean;
                squares += d * d;
            }
        });
        const float spread = block_sum(squares, shared) / static_cast<float>(a.size);
        const auto rstd = static_cast<float>(1.0 / sqrt(static_cast<double>(spread) + a.eps));
        T* y = a.y + row * a.size;
        x.each(a.size, self, group, [&](int64_t i, Pack<T> pack, int n, int) {
            const Floats<T> gamma(a.gamma + i, n);
            float v[kPack<T>];
            for (int k = 0; k < n; ++k)
                v[k] = (widen(pack.value[k]) - mean) * rstd * gamma.value[k];
            if (a.beta != nullptr) {
                const Floats<T> beta(a.beta + i, n);
                for (int k = 0; k < n; ++k) v[k] += beta.value[k];
            }
            for (int k = 0; k < n; ++k) pack.value[k] = narrow<T>(v[k]);
            store_some(y + i, pack, n);
        });
        if (a.stats != nullptr && threadIdx.x == 0) {
            a.stats[2 * row] = mean;
            a.stats[2 * row + 1] = rstd;
        }
    }
}

template <typename T>
struct NormBackward {
    T* dx;
    const T* dy;
    const T* x;
    const float* stats;
    const float* gamma;
    float* partial;  // of each block its sums for dgamma, then for dbeta, as far as wanted
    int64_t rows;
    int64_t block_rows;
    int64_t size;
    bool accumulate;
    bool dgamma;
    bool dbeta;

    __device__ __forceinline__ float* partial_of(int64_t block) const {
        return partial + block * size * ((dgamma ? 1 : 0) + (dbeta ? 1 : 0));
    }
};

// What a group of threads shares of a row.
struct RowNumbers {
    float mean;
    float rstd;
    float mean_g;   // of g = dy gamma; 0 for RMSNorm
    float mean_gx;  // of g xhat, xhat = (x - mean) rstd
};

// dx (+)= rstd (g - mean(g) - xhat mean(g xhat)) of n values at element i.
template <typename T>
__device__ __forceinline__ void store_dx(T* dx, const Pack<T>& x, const Pack<T>& dy,
                                         const float* gamma, const RowNumbers& r, bool accumulate,
                                         int n) {
    const Floats<T> scale(gamma, n);
    Pack<T> d = {};
    if (accumulate) d = load_some(dx, n);
    for (int k = 0; k < n; ++k) {
        const float xhat = (widen(x.value[k]) - r.mean) * r.rstd;
        const float g = widen(dy.value[k]) * scale.value[k];
        const float v = r.rstd * (g - r.mean_g - xhat * r.mean_gx);
        d.value[k] = narrow<T>(accumulate ? widen(d.value[k]) + v : v);
    }
    store_some(dx, d, n);
}

// The sums of g and g xhat of n values.
template <typename T>
__device__ __forceinline__ void add_means(RowNumbers* r, const Pack<T>& x, const Pack<T>& dy,
                                          const float* gamma, int n) {
    const Floats<T> scale(gamma, n);
    for (int k = 0; k < n; ++k) {
        const float g = widen(dy.value[k]) * scale.value[k];
        r->mean_g += g;
        r->mean_gx += g * ((widen(x.value[k]) - r->mean) * r->rstd);
    }
}

// Sums of the group become its means.
template <bool kByWarp, bool kLayer>
__device__ __forceinline__ void finish_means(RowNumbers* r, int64_t size, float* shared) {
    const auto count = static_cast<float>(size);
    const float gx = kByWarp ? warp_sum(r->mean_gx) : block_sum(r->mean_gx, shared);
    r->mean_gx = gx / count;
    if constexpr (kLayer) {
        const float g = kByWarp ? warp_sum(r->mean_g) : block_sum(r->mean_g, shared);
        r->mean_g = g / count;
    } else {
        r->mean_g = 0;
    }
}

// Adds a thread's columns to the block's sums; of several warps that have the same columns one
// after another.
template <typename T, size_t kHeld, bool kByWarp>
__device__ __forceinline__ void store_partial(float* to, const float (&sum)[kHeld][kPack<T>],
                                              int64_t size, float* shared) {
    const int self = static_cast<int>(threadIdx.x) % (kByWarp ? kWarp : kBlockMax);
    const int group = kByWarp ? kWarp : static_cast<int>(blockDim.x);
    const int warps = kByWarp ? static_cast<int>(blockDim.x) / kWarp : 1;
    float* sums = kByWarp ? shared : to;
    for (int turn = 0; turn < warps; ++turn) {
        if (!kByWarp || static_cast<int>(threadIdx.x) / kWarp == turn) {
#pragma unroll
            for (size_t k = 0; k < kHeld; ++k) {
                const int64_t i = (self + static_cast<int64_t>(k) * group) * kPack<T>;
                if (i >= size) continue;
                store_floats<T>(sums + i, sum[k], kPack<T>, turn > 0);
            }
        }
        if constexpr (kByWarp) __syncthreads();
    }
    if constexpr (kByWarp) {
        for (int64_t i = threadIdx.x; i < size; i += blockDim.x) to[i] = shared[i];
        __syncthreads();
    }
}

// A block's rows, one at a time for each group of threads: a warp where a row fits its registers,
// else the block. The gradients of gamma and beta stay in registers until the last row.
// Where a block has the row, it may have all registers of a multiprocessor: the compilers of CUDA
// 12.4 to 12.6 would spill one to fit two blocks.
template <typename T, int kHeld, bool kByWarp, bool kLayer>
__global__ void __launch_bounds__(kByWarp ? kWarpsThreads : kBlockThreads, kByWarp ? 0 : 1)
    norm_backward_rows(NormBackward<T> a) {
    auto* shared = reinterpret_cast<float*>(block_shared());
    const int thread = static_cast<int>(threadIdx.x), threads = static_cast<int>(blockDim.x);
    const int self = kByWarp ? thread % kWarp : thread, group = kByWarp ? kWarp : threads;
    const int groups = kByWarp ? threads / kWarp : 1;
    const int64_t begin = blockIdx.x * a.block_rows;
    const int64_t end = begin + a.block_rows < a.rows ? begin + a.block_rows : a.rows;
    float dgamma[kHeld][kPack<T>] = {}, dbeta[kLayer ? kHeld : 1][kPack<T>] = {};
    int64_t row = begin + (kByWarp ? thread / kWarp : 0);
    RowPart<T, kHeld> x, dy, next_x, next_dy;
    x.load(a.x + row * a.size, row < end ? a.size : 0, self, group);
    dy.load(a.dy + row * a.size, row < end ? a.size : 0, self, group);
    for (; row < end; row += groups) {
        // A block's warps wait for each other: its next row is on the way meanwhile.
        const int64_t next = row + groups;
        if (!kByWarp && next < end) {
            next_x.load(a.x + next * a.size, a.size, self, group);
            next_dy.load(a.dy + next * a.size, a.size, self, group);
        }
        RowNumbers r = {a.stats[2 * row], a.stats[2 * row + 1], 0, 0};
        x.each(a.size, self, group, [&](int64_t i, const Pack<T>& pack, int n, int slot) {
            add_means(&r, pack, dy.pack[slot], a.gamma + i, n);
            for (int k = 0; k < n; ++k) {
                const float d = widen(dy.pack[slot].value[k]);
                dgamma[slot][k] += d * ((widen(pack.value[k]) - r.mean) * r.rstd);
                if constexpr (kLayer) dbeta[slot][k] += d;
            }
        });
        finish_means<kByWarp, kLayer>(&r, a.size, shared);
        T* dx = a.dx + row * a.size;
        x.each(a.size, self, group, [&](int64_t i, const Pack<T>& pack, int n, int slot) {
            store_dx(dx + i, pack, dy.pack[slot], a.gamma + i, r, a.accumulate, n);
        });
        if constexpr (kByWarp) {
            x.load(a.x + next * a.size, next < end ? a.size : 0, self, group);
            dy.load(a.dy + next * a.size, next < end ? a.size : 0, self, group);
        } else {
            x = next_x;
            dy = next_dy;
        }
    }
    float* partial = a.partial_of(blockIdx.x);
    if (a.dgamma) store_partial<T, kHeld, kByWarp>(partial, dgamma, a.size, shared);
    if constexpr (kLayer)
        if (a.dbeta)
            store_partial<T, kHeld, kByWarp>(partial + (a.dgamma ? a.size : 0), dbeta, a.size,
                                             shared);
}

// Rows of any size: every pass reads them again, and a thread's columns of the block's sums stand
// in memory, where no other thread touches them.
template <typename T, bool kLayer>
__global__ void __launch_bounds__(kLongThreads) norm_backward_long_rows(NormBackward<T> a) {
    auto* shared = reinterpret_cast<float*>(block_shared());
    const int self = static_cast<int>(threadIdx.x), group = static_cast<int>(blockDim.x);
    const int64_t begin = blockIdx.x * a.block_rows;
    const int64_t end = begin + a.block_rows < a.rows ? begin + a.block_rows : a.rows;
    float* dgamma = a.partial_of(blockIdx.x);
    float* dbeta = dgamma + (a.dgamma ? a.size : 0);
    for (int64_t row = begin; row < end; ++row) {
        RowPart<T, 0> x;
        x.load(a.x + row * a.size, a.size, self, group);
        const T* dy = a.dy + row * a.size;
        RowNumbers r = {a.stats[2 * row], a.stats[2 * row + 1], 0, 0};
        x.each(a.size, self, group, [&](int64_t i, const Pack<T>& pack, int n, int) {
            const Pack<T> d = load_some(dy + i, n);
            add_means(&r, pack, d, a.gamma + i, n);
            float v[kPack<T>];
            for (int k = 0; k < n; ++k)
                v[k] = widen(d.value[k]) * ((widen(pack.value[k]) - r.mean) * r.rstd);
            if (a.dgamma) store_floats<T>(dgamma + i, v, n, row > begin);
            for (int k = 0; k < n; ++k) v[k] = widen(d.value[k]);
            if (a.dbeta) store_floats<T>(dbeta + i, v, n, row > begin);
        });
        finish_means<false, kLayer>(&r, a.size, shared);
        T* dx = a.dx + row * a.size;
        x.each(a.size, self, group, [&](int64_t i, const Pack<T>& pack, int n, int) {
            store_dx(dx + i, pack, load_some(dy + i, n), a.gamma + i, r, a.accumulate, n);
        });
    }
}

// Adds the blocks' sums to dgamma and dbeta: a block for 32 columns, whose warps add every 32nd
// block and then themselves in order.
__global__ void __launch_bounds__(kBlockMax)
    add_partials(float* dgamma, float* dbeta, const float* __restrict__ partial, int64_t blocks,
                 int64_t size) {
    auto* sums = reinterpret_cast<float*>(block_shared());
    const int lane = static_cast<int>(threadIdx.x) % kWarp;
    const int warp = static_cast<int>(threadIdx.x) / kWarp;
    const int64_t columns = size * ((dgamma != nullptr ? 1 : 0) + (dbeta != nullptr ? 1 : 0));
    const int64_t column = static_cast<int64_t>(blockIdx.x) * kWarp + lane;
    float sum = 0;
    if (column < columns) {
#pragma unroll 8
        for (int64_t b = warp; b < blocks; b += kWarp) sum += partial[b * columns + column];
    }
    sums[threadIdx.x] = sum;
    __syncthreads();
    if (warp > 0 || column >= columns) return;
    for (int w = 1; w < kWarp; ++w) sum += sums[w * kWarp + lane];
    if (dgamma != nullptr && column < size)
        dgamma[column] += sum;
    else
        dbeta[dgamma != nullptr ? column - size : column] += sum;
}

// Threads for a row's packs, each holding up to `held` of them.
constexpr int row_threads(int64_t packs, int held) {
    return static_cast<int>(align_up(ceil_div(packs, held), kWarp));
}

template <typename T>
void norm(const KernelArgs& args) noexcept {
    using O = NormOperands;
    constexpr int kHeld = 4;
    constexpr int64_t kBlocksMax = 8192, kSharedBytes = kWarp * 4;
    const int64_t rows = args.shape[O::x].rows(), size = args.shape[O::x].last();
    ASSERT(args.shape[O::y].elements() == rows * size && args.shape[O::gamma].elements() == size);
    const Norm<T> a{args.at<T>(O::y),
                    args.at<float>(O::stats),
                    args.at<T>(O::x),
                    args.at<float>(O::gamma),
                    args.at<float>(O::beta),
                    rows,
                    size,
                    args.attrs->norm.eps,
                    args.attrs->norm.kind == NormKind::layer};
    const int64_t blocks = rows < kBlocksMax ? rows : kBlocksMax, packs = size / kPack<T>;
    if (size % kPack<T> == 0 && packs <= kHeld * kBlockMax)
        launch<norm_rows<T, kHeld>>({blocks, row_threads(packs, kHeld), args.stream, kSharedBytes},
                                    a);
    else
        launch<norm_rows<T, 0>>({blocks, kLongThreads, args.stream, kSharedBytes}, a);
}

template <typename T, bool kLayer>
void launch_norm_backward(const NormBackward<T>& a, void* stream) {
    constexpr int kHeldByWarp = 4, kHeldByBlock = 2;
    constexpr int64_t kSharedBytes = kWarp * 4;
    const int64_t blocks = ceil_div(a.rows, a.block_rows), packs = a.size / kPack<T>;
    const bool held = a.size % kPack<T> == 0;
    constexpr int kWarpsMax = kWarpsThreads / kWarp;
    const int warps = a.block_rows < kWarpsMax ? static_cast<int>(a.block_rows) : kWarpsMax;
    if (held && packs <= kHeldByWarp * kWarp)
        launch<norm_backward_rows<T, kHeldByWarp, true, kLayer>>(
            {blocks, warps * kWarp, stream, a.size * 4}, a);
    else if (held && packs <= kHeldByBlock * kBlockThreads)
        launch<norm_backward_rows<T, kHeldByBlock, false, kLayer>>(
            {blocks, row_threads(packs, kHeldByBlock), stream, kSharedBytes}, a);
    else
        launch<norm_backward_long_rows<T, kLayer>>({blocks, kLongThreads, stream, kSharedBytes}, a);
}

template <typename T>
void norm_backward(const KernelArgs& args) noexcept {
    using O = NormBackwardOperands;
    const int64_t rows = args.shape[O::x].rows(), size = args.shape[O::x].last();
    ASSERT(args.shape[O::dy].elements() == rows * size &&
           args.shape[O::stats].elements() == rows * 2);
    const bool layer = args.attrs->norm.kind == NormKind::layer;
    ASSERT(layer || !args.has(O::dbeta));
    const int params = (args.has(O::dgamma) ? 1 : 0) + (args.has(O::dbeta) ? 1 : 0);
    ASSERT(args.scratch_bytes >= norm_backward_scratch_bytes(rows, size, params));
    const NormBackward<T> a{args.at<T>(O::dx),
                            args.at<T>(O::dy),
                            args.at<T>(O::x),
                            args.at<float>(O::stats),
                            args.at<float>(O::gamma),
                            static_cast<float*>(args.scratch),
                            rows,
                            norm_block_rows(rows),
                            size,
                            args.attrs->norm.accumulate != 0,
                            args.has(O::dgamma),
                            args.has(O::dbeta)};
    if (layer)
        launch_norm_backward<T, true>(a, args.stream);
    else
        launch_norm_backward<T, false>(a, args.stream);
    constexpr int64_t kSharedBytes = kBlockMax * 4;
    launch<add_partials>({ceil_div(size * params, kWarp), kBlockMax, args.stream, kSharedBytes},
                         args.at<float>(O::dgamma), args.at<float>(O::dbeta),
                         static_cast<const float*>(args.scratch), ceil_div(rows, a.block_rows),
                         size);
}

}  // namespace

void add_norm(KernelTable& table) noexcept {
    set_kernels(table, OpKind::norm, norm<float>, norm<Bf16>, norm<F16>);
    set_kernels(table, OpKind::norm_backward, norm_backward<float>, norm_backward<Bf16>,
                norm_backward<F16>);
}

}  // namespace plumb::cuda
