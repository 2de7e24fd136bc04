#include "kernels/cpu/gemm.h"

#include "kernels/cpu/vec.h"

namespace plumb::cpu::PLUMB_ISA {
namespace {

constexpr GemmBlocking kBlock = kGemmBlocking[static_cast<int>(Isa::PLUMB_ISA)];
constexpr int64_t kMr = kBlock.mr;
constexpr int64_t kNr = kBlock.nr;
constexpr int64_t kNv = kNr / kLanes;
static_assert(kNr % kLanes == 0 && kBlock.mc % kMr == 0 && kBlock.nc % kNr == 0);

// to[p][0..3] = from[0..3][p] for four p.
PLUMB_INLINE void transpose_4x4(const float* from, int64_t row, float* to, int64_t width) {
    Vec4 r[4], t[4];
    for (int i = 0; i < 4; ++i) __builtin_memcpy(&r[i], from + i * row, sizeof(Vec4));
    t[0] = __builtin_shufflevector(r[0], r[1], 0, 4, 1, 5);
    t[1] = __builtin_shufflevector(r[2], r[3], 0, 4, 1, 5);
    t[2] = __builtin_shufflevector(r[0], r[1], 2, 6, 3, 7);
    t[3] = __builtin_shufflevector(r[2], r[3], 2, 6, 3, 7);
    r[0] = __builtin_shufflevector(t[0], t[1], 0, 1, 4, 5);
    r[1] = __builtin_shufflevector(t[0], t[1], 2, 3, 6, 7);
    r[2] = __builtin_shufflevector(t[2], t[3], 0, 1, 4, 5);
    r[3] = __builtin_shufflevector(t[2], t[3], 2, 3, 6, 7);
    for (int i = 0; i < 4; ++i) __builtin_memcpy(to + i * width, &r[i], sizeof(Vec4));
}

// panel[p][i] = from[i * row + p * col], i < width (zero from `rows` on), p < depth.
template <int64_t width>
void pack_panel(const float* from, int64_t row, int64_t col, int64_t rows, int64_t depth,
                float* panel) {
    int64_t i = 0;
    if (col == 1) {
        for (; i + 4 <= rows; i += 4) {
            int64_t p = 0;
            for (; p + 4 <= depth; p += 4)
                transpose_4x4(from + i * row + p, row, panel + p * width + i, width);
            for (; p < depth; ++p)
                for (int64_t r = i; r < i + 4; ++r) panel[p * width + r] = from[r * row + p];
        }
    } else if (row == 1 && rows == width) {
        for (int64_t p = 0; p < depth; ++p)
            __builtin_memcpy(panel + p * width, from + p * col, width * sizeof(float));
        return;
    }
    for (int64_t p = 0; p < depth; ++p) {
        for (int64_t r = i; r < rows; ++r) panel[p * width + r] = from[r * row + p * col];
        for (int64_t r = rows; r < width; ++r) panel[p * width + r] = 0.0F;
    }
}

// tile[kMr][kNr] = a panel * b panel, all accumulators in registers.
PLUMB_INLINE void multiply_panels(int64_t depth, const float* a, const float* b, float* tile) {
    VecF sum[kMr][kNv] = {};
    for (int64_t p = 0; p < depth; ++p) {
        VecF row[kNv];
#pragma GCC unroll 4
        for (int64_t j = 0; j < kNv; ++j) row[j] = load(b + j * kLanes);
#pragma GCC unroll 16
        for (int64_t i = 0; i < kMr; ++i) {
            const VecF x = splat(a[i]);
#pragma GCC unroll 4
            for (int64_t j = 0; j < kNv; ++j) sum[i][j] += x * row[j];
        }
        a += kMr;
        b += kNr;
    }
#pragma GCC unroll 16
    for (int64_t i = 0; i < kMr; ++i)
#pragma GCC unroll 4
        for (int64_t j = 0; j < kNv; ++j) store(tile + i * kNr + j * kLanes, sum[i][j]);
}

struct TilePlace {
    int64_t row;
    int64_t column;
    bool first;  // block of the sum over K
    bool last;
};

// Adds a tile to its place in c and, after the last block of the sum, applies the epilogue.
PLUMB_INLINE void store_tile(const Gemm& g, const TilePlace& at, const float* tile) {
    const int64_t rows = lesser(kMr, g.m - at.row), columns = lesser(kNr, g.n - at.column);
    const bool add = g.accumulate || !at.first;
    for (int64_t i = 0; i < rows; ++i) {
        const int64_t offset = (at.row + i) * g.n + at.column;
        for (int64_t j = 0; j < columns; j += kLanes) {
            const int64_t lanes = columns - j;
            VecF v = load(tile + i * kNr + j);
            if (add) v += load_part(g.c + offset + j, lanes);
            if (at.last) {
                if (g.bias != nullptr) v += load_part(g.bias + at.column + j, lanes);
                if (g.pre != nullptr) store_part(g.pre + offset + j, v, lanes);
                if (g.gelu) v = gelu_of(v);
                if (g.residual != nullptr) v += load_part(g.residual + offset + j, lanes);
            }
            store_part(g.c + offset + j, v, lanes);
        }
    }
}

// Asks for a tile of c, and of what the epilogue needs, while its sum is computed: the rows lie far
// apart, and nothing else would fetch them in time.
PLUMB_INLINE void fetch_tile(const Gemm& g, int64_t row, int64_t column, bool last) {
    const int64_t rows = lesser(kMr, g.m - row);
    for (int64_t i = 0; i < rows; ++i) {
        const int64_t offset = (row + i) * g.n + column;
        for (int64_t j = 0; j < kNr; j += 16) {
            __builtin_prefetch(g.c + offset + j, 1);
            if (last && g.pre != nullptr) __builtin_prefetch(g.pre + offset + j, 1);
            if (last && g.residual != nullptr) __builtin_prefetch(g.residual + offset + j);
        }
    }
}

// The team as a grid of rows x columns of c with the least largest share; ties go to more rows,
// where no two threads pack the same part of A.
struct Grid {
    int64_t rows;
    int64_t columns;
};
PLUMB_INLINE Grid choose_grid(int64_t panels_m, int64_t panels_n, int64_t team) {
    Grid best{team, 1};
    int64_t least = INT64_MAX;
    for (int64_t rows = team; rows >= 1; --rows) {
        if (team % rows != 0) continue;
        const int64_t columns = team / rows;
        const int64_t share = ((panels_m + rows - 1) / rows) * ((panels_n + columns - 1) / columns);
        if (share < least) {
            least = share;
            best = {rows, columns};
        }
    }
    return best;
}

struct BlockOfB {
    const float* packed;
    int64_t column;   // of c
    int64_t columns;  // in the block
    int64_t depth_begin;
    int64_t depth;
};

// This thread's rows of c, columns [begin, end) of the packed block of B.
void multiply_block(const Gemm& g, const BlockOfB& b, Range rows, Range columns, float* packed_a) {
    alignas(64) float tile[kMr * kNr];
    const TilePlace sum{0, 0, b.depth_begin == 0, b.depth_begin + b.depth == g.k};
    for (int64_t ic = rows.begin; ic < rows.end; ic += kBlock.mc) {
        const int64_t end = lesser(ic + kBlock.mc, rows.end);
        for (int64_t i = ic; i < end; i += kMr)
            pack_panel<kMr>(g.a + i * g.a_row + b.depth_begin * g.a_col, g.a_row, g.a_col,
                            lesser(kMr, end - i), b.depth, packed_a + (i - ic) * b.depth);
        for (int64_t j = columns.begin; j < columns.end; j += kNr) {
            for (int64_t i = ic; i < end; i += kMr) {
                fetch_tile(g, i, b.column + j, sum.last);
                multiply_panels(b.depth, packed_a + (i - ic) * b.depth, b.packed + j * b.depth,
                                tile);
                store_tile(g, {i, b.column + j, sum.first, sum.last}, tile);
            }
        }
    }
}

}  // namespace

void gemm(const Gemm& g, float* scratch, int32_t threads) noexcept {
    float* packed_b = scratch;
    float* packed_a = scratch + gemm_b_floats(kBlock, g.n, g.k);
    const int64_t a_floats = gemm_a_floats(kBlock, g.m, g.k);
    run_team(threads, [&](int64_t rank, int64_t team) {
        float* own_a = packed_a + rank * a_floats;
        for (int64_t jc = 0; jc < g.n; jc += kBlock.nc) {
            const int64_t columns = lesser(kBlock.nc, g.n - jc);
            const Grid grid = choose_grid((g.m + kMr - 1) / kMr, (columns + kNr - 1) / kNr, team);
            const Range my_rows = split(g.m, kMr, grid.rows, rank / grid.columns);
            const Range my_columns = split(columns, kNr, grid.columns, rank % grid.columns);
            const Range my_panels = split(columns, kNr, team, rank);
            for (int64_t pc = 0; pc < g.k; pc += kBlock.kc) {
                const int64_t depth = lesser(kBlock.kc, g.k - pc);
                for (int64_t j = my_panels.begin; j < my_panels.end; j += kNr)
                    pack_panel<kNr>(g.b + pc * g.b_row + (jc + j) * g.b_col, g.b_col, g.b_row,
                                    lesser(kNr, columns - j), depth, packed_b + j * depth);
#pragma omp barrier
                multiply_block(g, {packed_b, jc, columns, pc, depth}, my_rows, my_columns, own_a);
#pragma omp barrier
            }
        }
    });
}

}  // namespace plumb::cpu::PLUMB_ISA
