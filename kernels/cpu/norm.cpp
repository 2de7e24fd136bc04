#include "kernels/cpu/kernel_list.h"
#include "kernels/cpu/vec.h"

namespace plumb::cpu::PLUMB_ISA {
namespace {

template <typename T>
PLUMB_INLINE float mean_of(const T* x, int64_t size) {
    VecF sum{};
    int64_t i = 0;
    for (; i + kLanes <= size; i += kLanes) sum += load(x + i);
    sum += load_part(x + i, size - i);
    return sum_lanes(sum) / static_cast<float>(size);
}

// Mean of (x - mean)^2.
template <typename T>
PLUMB_INLINE float spread_of(const T* x, float mean, int64_t size) {
    VecF sum{};
    int64_t i = 0;
    for (; i + kLanes <= size; i += kLanes) {
        const VecF d = load(x + i) - splat(mean);
        sum += d * d;
    }
    float tail = 0;
    for (; i < size; ++i) {
        const float d = value_at(x + i) - mean;
        tail += d * d;
    }
    return (sum_lanes(sum) + tail) / static_cast<float>(size);
}

template <typename T>
struct NormRow {
    const T* dy;
    const T* x;
    const float* gamma;
    float mean;
    float rstd;
    int64_t size;
    bool layer;
};

// dx (+)= rstd (g - mean(g) - xhat mean(g xhat)), g = dy gamma, xhat = (x - mean) rstd; RMSNorm
// has no mean(g).
template <typename T>
PLUMB_INLINE void norm_dx(const NormRow<T>& r, T* dx, bool accumulate) {
    VecF sum_g{}, sum_gx{};
    int64_t i = 0;
    for (; i < r.size; i += kLanes) {
        const int64_t lanes = r.size - i;
        // Lanes past the end have g = 0 and add nothing to either sum.
        const VecF g = load_part(r.dy + i, lanes) * load_part(r.gamma + i, lanes);
        sum_g += g;
        sum_gx += g * ((load_part(r.x + i, lanes) - splat(r.mean)) * splat(r.rstd));
    }
    const float count = static_cast<float>(r.size);
    const VecF mean_g = splat(r.layer ? sum_lanes(sum_g) / count : 0.0F);
    const VecF mean_gx = splat(sum_lanes(sum_gx) / count);
    for (i = 0; i < r.size; i += kLanes) {
        const int64_t lanes = r.size - i;
        const VecF g = load_part(r.dy + i, lanes) * load_part(r.gamma + i, lanes);
        const VecF xhat = (load_part(r.x + i, lanes) - splat(r.mean)) * splat(r.rstd);
        VecF d = splat(r.rstd) * (g - mean_g - xhat * mean_gx);
        if (accumulate) d += load_part(dx + i, lanes);
        store_part(dx + i, d, lanes);
    }
}

template <typename T>
PLUMB_INLINE void norm_dgamma(const NormRow<T>& r, float* dgamma, float* dbeta) {
    for (int64_t i = 0; i < r.size; i += kLanes) {
        const int64_t lanes = r.size - i;
        const VecF dy = load_part(r.dy + i, lanes);
        const VecF xhat = (load_part(r.x + i, lanes) - splat(r.mean)) * splat(r.rstd);
        store_part(dgamma + i, load_part(dgamma + i, lanes) + dy * xhat, lanes);
        store_part(dbeta + i, load_part(dbeta + i, lanes) + dy, lanes);
    }
}

}  // namespace

template <typename T>
void norm(const KernelArgs& args) noexcept {
    using O = NormOperands;
    const int64_t rows = rows_of(args.shape[O::x]), size = last_of(args.shape[O::x]);
    ASSERT(elements_of(args.shape[O::y]) == rows * size &&
           elements_of(args.shape[O::gamma]) == size);
    const bool layer = args.attrs->norm.kind == NormKind::layer;
    const float* gamma = floats(args, O::gamma);
    const float* beta = floats(args, O::beta);
    float* stats = floats(args, O::stats);
    run_team(args.threads, [&](int64_t rank, int64_t team) {
        const Range range = split(rows, 1, team, rank);
        for (int64_t row = range.begin; row < range.end; ++row) {
            const T* x = values<T>(args, O::x) + row * size;
            T* y = values<T>(args, O::y) + row * size;
            const float mean = layer ? mean_of(x, size) : 0.0F;
            const double square = static_cast<double>(spread_of(x, mean, size));
            const float rstd =
                static_cast<float>(1.0 / __builtin_sqrt(square + args.attrs->norm.eps));
            for (int64_t i = 0; i < size; i += kLanes) {
                const int64_t lanes = size - i;
                VecF v = (load_part(x + i, lanes) - splat(mean)) * splat(rstd) *
                         load_part(gamma + i, lanes);
                if (beta != nullptr) v += load_part(beta + i, lanes);
                store_part(y + i, v, lanes);
            }
            if (stats != nullptr) {
                stats[2 * row] = mean;
                stats[2 * row + 1] = rstd;
            }
        }
    });
}

// One pass over the rows: dx at once; gamma's and beta's gradients per block of rows in scratch,
// whose blocks are then added in order (the blocks do not depend on the team).
template <typename T>
void norm_backward(const KernelArgs& args) noexcept {
    using O = NormBackwardOperands;
    const int64_t rows = rows_of(args.shape[O::x]), size = last_of(args.shape[O::x]);
    ASSERT(elements_of(args.shape[O::dy]) == rows * size &&
           elements_of(args.shape[O::stats]) == rows * 2);
    ASSERT(args.scratch_bytes >= norm_backward_scratch_floats(rows, size) * 4);
    const bool layer = args.attrs->norm.kind == NormKind::layer;
    const bool accumulate = args.attrs->norm.accumulate != 0;
    float* dgamma = floats(args, O::dgamma);
    float* dbeta = floats(args, O::dbeta);
    const bool params = dgamma != nullptr || dbeta != nullptr;
    const float* stats = floats(args, O::stats);
    float* partial = static_cast<float*>(args.scratch);
    const int64_t blocks = (rows + kNormRowBlock - 1) / kNormRowBlock;
    run_team(args.threads, [&](int64_t rank, int64_t team) {
        const Range range = split(blocks, 1, team, rank);
        for (int64_t block = range.begin; block < range.end; ++block) {
            float* sums = partial + block * 2 * size;
            if (params) __builtin_memset(sums, 0, static_cast<size_t>(2 * size) * sizeof(float));
            const int64_t end = lesser(rows, (block + 1) * kNormRowBlock);
            for (int64_t row = block * kNormRowBlock; row < end; ++row) {
                const NormRow<T> r{values<T>(args, O::dy) + row * size,
                                   values<T>(args, O::x) + row * size,
                                   floats(args, O::gamma),
                                   stats[2 * row],
                                   stats[2 * row + 1],
                                   size,
                                   layer};
                if (params) norm_dgamma(r, sums, sums + size);
                norm_dx(r, values<T>(args, O::dx) + row * size, accumulate);
            }
        }
#pragma omp barrier
        const Range columns = split(size, kLanesMax, team, rank);
        for (int64_t block = 0; block < blocks; ++block) {
            const float* sums = partial + block * 2 * size;
            for (int64_t i = columns.begin; i < columns.end; ++i) {
                if (dgamma != nullptr) dgamma[i] += sums[i];
                if (dbeta != nullptr) dbeta[i] += sums[size + i];
            }
        }
    });
}

PLUMB_VALUE_KERNEL(norm)
PLUMB_VALUE_KERNEL(norm_backward)

}  // namespace plumb::cpu::PLUMB_ISA
