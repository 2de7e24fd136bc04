#include "kernels/cpu/block_matmul.h"

#include "kernels/cpu/vec.h"

namespace plumb::cpu::PLUMB_ISA {
namespace {

// R rows x V vectors of c from column j on; kRowStep: a_row is 1 (else a_col is).
template <int R, int V, bool kRowStep>
PLUMB_INLINE void block_tile(const BlockMatmul& x, int64_t i, int64_t j) {
    VecF sum[static_cast<size_t>(R)][static_cast<size_t>(V)] = {};
    const float* a = x.a + i * x.a_row;
    const float* b = x.b + j;
    const int64_t row = kRowStep ? 1 : x.a_row, column = kRowStep ? x.a_col : 1;
    for (int64_t p = 0; p < x.k; ++p) {
        VecF v[static_cast<size_t>(V)];
#pragma GCC unroll 2
        for (int q = 0; q < V; ++q) v[q] = load(b + q * kLanes);
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r) {
            const VecF s = splat(a[r * row]);
#pragma GCC unroll 2
            for (int q = 0; q < V; ++q) sum[r][q] += s * v[q];
        }
        a += column;
        b += x.b_row;
    }
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
        float* c = x.c + (i + r) * x.c_row + j;
#pragma GCC unroll 2
        for (int q = 0; q < V; ++q) {
            const int64_t lanes = x.n - j - q * kLanes;
            VecF y = sum[r][q];
            if (x.accumulate) y += load_part(c + q * kLanes, lanes);
            store_part(c + q * kLanes, y, lanes);
        }
    }
}

template <int V, bool kRowStep>
PLUMB_INLINE void block_columns(const BlockMatmul& x, int64_t j) {
    constexpr int kRows = kLanes == 16 ? 8 : 4;
    int64_t i = 0;
    for (; i + kRows <= x.m; i += kRows) block_tile<kRows, V, kRowStep>(x, i, j);
    for (; i + 2 <= x.m; i += 2) block_tile<2, V, kRowStep>(x, i, j);
    for (; i < x.m; ++i) block_tile<1, V, kRowStep>(x, i, j);
}

template <bool kRowStep>
void block_loop(const BlockMatmul& x) {
    int64_t j = 0;
    for (; j + kLanes < x.n; j += 2 * kLanes) block_columns<2, kRowStep>(x, j);
    for (; j < x.n; j += kLanes) block_columns<1, kRowStep>(x, j);
}

}  // namespace

void block_matmul(const BlockMatmul& x) noexcept {
    if (x.a_row == 1)
        block_loop<true>(x);
    else
        block_loop<false>(x);
}

}  // namespace plumb::cpu::PLUMB_ISA
