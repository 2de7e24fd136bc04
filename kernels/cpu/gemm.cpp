#include "kernels/cpu/gemm.h"

#include "kernels/cpu/vec.h"

namespace plumb::cpu::PLUMB_ISA {
namespace {

template <typename T>
constexpr GemmBlocking kBlocking = gemm_blocking(Isa::PLUMB_ISA, Value<T>::dtype);
constexpr int64_t kMr = kBlocking<float>.mr;
constexpr int64_t kNr = kBlocking<float>.nr;
constexpr int64_t kNv = kNr / kLanes;
static_assert(kNr % kLanes == 0 && kBlocking<float>.mc % kMr == 0 &&
              kBlocking<float>.nc % kNr == 0 && kGemmSumRows % kMr == 0 &&
              kGemmSumColumns % kNr == 0);

template <typename T>
PLUMB_INLINE int64_t words_of(int64_t depth) {
    return gemm_words(kBlocking<T>, depth);
}

// A matrix in memory from one of its elements on: (i, p) at from[i * row + p * col].
template <typename T>
struct Source {
    const T* from;
    int64_t row;
    int64_t col;
};

// to[p][0..3] = from[0..3][p] for four p, of words; row_bytes need not be a multiple of a word.
PLUMB_INLINE void transpose_4x4(const char* from, int64_t row_bytes, char* to, int64_t width) {
    Vec4 r[4], t[4];
    for (int i = 0; i < 4; ++i) __builtin_memcpy(&r[i], from + i * row_bytes, sizeof(Vec4));
    t[0] = __builtin_shufflevector(r[0], r[1], 0, 4, 1, 5);
    t[1] = __builtin_shufflevector(r[2], r[3], 0, 4, 1, 5);
    t[2] = __builtin_shufflevector(r[0], r[1], 2, 6, 3, 7);
    t[3] = __builtin_shufflevector(r[2], r[3], 2, 6, 3, 7);
    r[0] = __builtin_shufflevector(t[0], t[1], 0, 1, 4, 5);
    r[1] = __builtin_shufflevector(t[0], t[1], 2, 3, 6, 7);
    r[2] = __builtin_shufflevector(t[2], t[3], 0, 1, 4, 5);
    r[3] = __builtin_shufflevector(t[2], t[3], 2, 3, 6, 7);
    for (int i = 0; i < 4; ++i) __builtin_memcpy(to + i * width * 4, &r[i], sizeof(Vec4));
}

// panel[p][i] = word p of row i, i < rows.
template <int64_t width>
PLUMB_INLINE void transpose_words(const void* from, int64_t row_bytes, int64_t rows, int64_t words,
                                  void* panel) {
    const char* source = static_cast<const char*>(from);
    char* to = static_cast<char*>(panel);
    int64_t i = 0;
    for (; i + 4 <= rows; i += 4) {
        int64_t p = 0;
        for (; p + 4 <= words; p += 4)
            transpose_4x4(source + i * row_bytes + p * 4, row_bytes, to + (p * width + i) * 4,
                          width);
        for (; p < words; ++p)
            for (int64_t r = i; r < i + 4; ++r)
                __builtin_memcpy(to + (p * width + r) * 4, source + r * row_bytes + p * 4, 4);
    }
    for (; i < rows; ++i)
        for (int64_t p = 0; p < words; ++p)
            __builtin_memcpy(to + (p * width + i) * 4, source + i * row_bytes + p * 4, 4);
}

// Panels of fp32 values.
template <int64_t width>
PLUMB_INLINE void pack_rows(const Source<float>& s, int64_t rows, int64_t depth, float* panel) {
    transpose_words<width>(s.from, s.row * 4, rows, depth, panel);
}
template <int64_t width, typename T>
PLUMB_INLINE void pack_rows(const Source<T>& s, int64_t rows, int64_t depth, float* panel) {
    constexpr int64_t kRun = 64;
    alignas(64) float wide[static_cast<size_t>(width * kRun)];
    for (int64_t p = 0; p < depth; p += kRun) {
        const int64_t count = lesser(kRun, depth - p);
        for (int64_t r = 0; r < rows; ++r)
            for (int64_t i = 0; i < count; i += kLanes)
                store(wide + r * kRun + i, load_part(s.from + r * s.row + p + i, count - i));
        transpose_words<width>(wide, kRun * 4, rows, count, panel + p * width);
    }
}
template <typename T>
PLUMB_INLINE void widen(const T* from, int64_t count, float* to) {
    for (int64_t i = 0; i < count; i += kLanes)
        store_part(to + i, load_part(from + i, count - i), count - i);
}
template <int64_t width, typename T>
PLUMB_INLINE void pack_columns(const Source<T>& s, int64_t rows, int64_t depth, float* panel) {
    for (int64_t p = 0; p < depth; ++p) {
        const T* from = s.from + p * s.col;
        // A copy whose size the compiler knows takes a few moves, a part of a vector takes a loop.
        if (Value<T>::dtype == Dtype::f32 && rows == width)
            __builtin_memcpy(panel + p * width, from, width * sizeof(float));
        else
            widen(from, rows, panel + p * width);
    }
}

PLUMB_INLINE void pair_four(const Bf16* low, const Bf16* high, uint32_t* to) {
    typedef uint16_t Half4 __attribute__((vector_size(8)));
    typedef uint32_t Word4 __attribute__((vector_size(16)));
    Half4 halves[2];
    __builtin_memcpy(&halves[0], low, sizeof(Half4));
    __builtin_memcpy(&halves[1], high, sizeof(Half4));
    const Word4 pairs =
        __builtin_convertvector(halves[0], Word4) | __builtin_convertvector(halves[1], Word4) << 16;
    __builtin_memcpy(to, &pairs, sizeof pairs);
}

// Panels of pairs: the value of an even p in the low half, that of p + 1 in the high half. A last
// pair without a second value has zero there, as the panel had.
template <int64_t width>
PLUMB_INLINE void pack_rows(const Source<Bf16>& s, int64_t rows, int64_t depth, uint32_t* panel) {
    transpose_words<width>(s.from, s.row * 2, rows, depth / 2, panel);
    if (depth % 2 == 0) return;
    for (int64_t i = 0; i < rows; ++i)
        panel[depth / 2 * width + i] = s.from[i * s.row + depth - 1].bits;
}
template <int64_t width>
PLUMB_INLINE void pack_columns(const Source<Bf16>& s, int64_t rows, int64_t depth,
                               uint32_t* panel) {
    const Bf16 none[static_cast<size_t>(width)] = {};
    for (int64_t p = 0; p < depth; p += 2) {
        const Bf16* low = s.from + p * s.col;
        const Bf16* high = p + 1 < depth ? low + s.col : none;
        uint32_t* to = panel + p / 2 * width;
        int64_t i = 0;
        if (width % kLanes == 0)
            for (; i + kLanes <= rows; i += kLanes) {
                const VecU pairs = load_halves(low + i) | load_halves(high + i) << 16;
                __builtin_memcpy(to + i, &pairs, sizeof pairs);
            }
        for (; i + 4 <= rows; i += 4) pair_four(low + i, high + i, to + i);
        for (; i < rows; ++i) to[i] = low[i].bits | static_cast<uint32_t>(high[i].bits) << 16;
    }
}

// panel[p][i] = the words of s(i, p), i < width (zero from `rows` on), p < depth (zero up to a
// whole step).
template <int64_t width, typename T>
void pack_panel(const Source<T>& s, int64_t rows, int64_t depth, typename Value<T>::Word* panel) {
    if (rows < width || depth % kBlocking<T>.step != 0)
        __builtin_memset(panel, 0, static_cast<size_t>(words_of<T>(depth) * width) * 4);
    if (s.col == 1)
        pack_rows<width>(s, rows, depth, panel);
    else
        pack_columns<width>(s, rows, depth, panel);
}

// tile[kMr][kNr] = a panel * b panel, all accumulators in registers. fp32 words of bf16 are taken
// in the order in which a pair is added (products.h).
template <typename T>
PLUMB_INLINE void multiply_panels(int64_t words, const typename Value<T>::Word* a,
                                  const typename Value<T>::Word* b, float* tile) {
    constexpr bool kOddFirst = kBlocking<T>.step_words == 2;
    VecF sum[kMr][kNv] = {};
    for (int64_t p = 0; p < words; ++p) {
        const int64_t at = kOddFirst ? p ^ 1 : p;
        decltype(load(b)) row[kNv];
#pragma GCC unroll 4
        for (int64_t j = 0; j < kNv; ++j) row[j] = load(b + at * kNr + j * kLanes);
#pragma GCC unroll 16
        for (int64_t i = 0; i < kMr; ++i) {
            const auto x = splat(a[at * kMr + i]);
#pragma GCC unroll 4
            for (int64_t j = 0; j < kNv; ++j) sum[i][j] = add_product(sum[i][j], x, row[j]);
        }
    }
#pragma GCC unroll 16
    for (int64_t i = 0; i < kMr; ++i)
#pragma GCC unroll 4
        for (int64_t j = 0; j < kNv; ++j) store(tile + i * kNr + j * kLanes, sum[i][j]);
}

struct TilePlace {
    int64_t row;
    int64_t column;
    float* sums;  // of the tile, or nullptr: c holds them
    bool first;   // block of the sum over K
    bool last;
};

template <typename T, typename C>
PLUMB_INLINE VecF apply_epilogue(const Gemm<T, C>& g, VecF v, int64_t column, int64_t offset,
                                 int64_t lanes) {
    if (g.bias != nullptr) v += load_part(g.bias + column, lanes);
    if (g.gelu) v = rounded_as(g.residual, v);
    if (g.pre != nullptr) store_part(g.pre + offset, v, lanes);
    if (g.gelu) v = gelu_of(v);
    if (g.residual != nullptr) v += load_part(g.residual + offset, lanes);
    return v;
}

// Adds a tile to the sums of its place and, after the last block of K, writes c.
template <typename T, typename C>
PLUMB_INLINE void store_tile(const Gemm<T, C>& g, const TilePlace& at, const float* tile) {
    const int64_t rows = lesser(kMr, g.m - at.row), columns = lesser(kNr, g.n - at.column);
    constexpr bool kSumsInC = Value<C>::dtype == Dtype::f32;
    for (int64_t i = 0; i < rows; ++i) {
        const int64_t offset = (at.row + i) * g.n + at.column;
        for (int64_t j = 0; j < columns; j += kLanes) {
            const int64_t lanes = columns - j;
            VecF v = load(tile + i * kNr + j);
            if (kSumsInC) {
                if (g.accumulate || !at.first) v += load_part(g.c + offset + j, lanes);
            } else {
                if (!at.first) v = load(at.sums + i * kNr + j) + v;
                if (!at.last) {
                    store(at.sums + i * kNr + j, v);
                    continue;
                }
                if (g.accumulate) v += load_part(g.c + offset + j, lanes);
            }
            if (at.last) v = apply_epilogue(g, v, at.column + j, offset + j, lanes);
            store_part(g.c + offset + j, v, lanes);
        }
    }
}

// Asks for what store_tile needs while the tile is computed: the rows of c lie far apart, and
// nothing else would fetch them in time.
template <typename T, typename C>
PLUMB_INLINE void fetch_tile(const Gemm<T, C>& g, const TilePlace& at) {
    const int64_t rows = lesser(kMr, g.m - at.row);
    if (at.sums != nullptr) {
        for (int64_t i = 0; i < kMr * kNr; i += 16) __builtin_prefetch(at.sums + i, 1);
        if (!at.last) return;
    }
    for (int64_t i = 0; i < rows; ++i) {
        const int64_t offset = (at.row + i) * g.n + at.column;
        for (int64_t j = 0; j < kNr; j += 16) {
            __builtin_prefetch(g.c + offset + j, 1);
            if (at.last && g.pre != nullptr) __builtin_prefetch(g.pre + offset + j, 1);
            if (at.last && g.residual != nullptr) __builtin_prefetch(g.residual + offset + j);
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

// A block of B, and the part of c that it adds to.
template <typename T>
struct Block {
    const typename Value<T>::Word* packed;
    Range rows;       // of c
    int64_t column;   // of c
    int64_t columns;  // in the block
    int64_t depth_begin;
    int64_t depth;
    float* sums;  // nullptr: c holds them

    float* sums_at(int64_t i, int64_t j) const {
        if (sums == nullptr) return nullptr;
        const int64_t panels = (columns + kNr - 1) / kNr;
        return sums + ((i - rows.begin) / kMr * panels + j / kNr) * kMr * kNr;
    }
};

// This thread's rows of c, columns [begin, end) of the packed block of B.
template <typename T, typename C>
void multiply_block(const Gemm<T, C>& g, const Block<T>& b, Range rows, Range columns,
                    typename Value<T>::Word* packed_a) {
    alignas(64) float tile[kMr * kNr];
    const int64_t words = words_of<T>(b.depth);
    const bool first = b.depth_begin == 0, last = b.depth_begin + b.depth == g.k;
    constexpr int64_t kMc = kBlocking<T>.mc;
    for (int64_t ic = rows.begin; ic < rows.end; ic += kMc) {
        const int64_t end = lesser(ic + kMc, rows.end);
        for (int64_t i = ic; i < end; i += kMr)
            pack_panel<kMr>(
                Source<T>{g.a + i * g.a_row + b.depth_begin * g.a_col, g.a_row, g.a_col},
                lesser(kMr, end - i), b.depth, packed_a + (i - ic) * words);
        for (int64_t j = columns.begin; j < columns.end; j += kNr) {
            for (int64_t i = ic; i < end; i += kMr) {
                const TilePlace at{i, b.column + j, b.sums_at(i, j), first, last};
                fetch_tile(g, at);
                multiply_panels<T>(words, packed_a + (i - ic) * words, b.packed + j * words, tile);
                store_tile(g, at, tile);
            }
        }
    }
}

}  // namespace

template <typename T, typename C>
void gemm(const Gemm<T, C>& g, void* scratch, int32_t threads) noexcept {
    using Word = typename Value<T>::Word;
    constexpr GemmBlocking kBlock = kBlocking<T>;
    const GemmLayout layout = gemm_layout(kBlock, {g.m, g.n, g.k, sizeof(C) == 2});
    Word* packed_b = static_cast<Word*>(scratch);
    Word* packed_a = packed_b + layout.b_words;
    float* sums = layout.sums_words == 0
                      ? nullptr
                      : static_cast<float*>(scratch) + layout.b_words + threads * layout.a_words;
    run_team(threads, [&](int64_t rank, int64_t team) {
        Word* own_a = packed_a + rank * layout.a_words;
        const auto add_blocks = [&](Range rows, int64_t jc) {
            const int64_t count = rows.end - rows.begin, columns = lesser(layout.columns, g.n - jc);
            const Grid grid = choose_grid((count + kMr - 1) / kMr, (columns + kNr - 1) / kNr, team);
            const Range part = split(count, kMr, grid.rows, rank / grid.columns);
            const Range my_rows{rows.begin + part.begin, rows.begin + part.end};
            const Range my_columns = split(columns, kNr, grid.columns, rank % grid.columns);
            const Range my_panels = split(columns, kNr, team, rank);
            for (int64_t pc = 0; pc < g.k; pc += kBlock.kc) {
                const int64_t depth = lesser(kBlock.kc, g.k - pc);
                for (int64_t j = my_panels.begin; j < my_panels.end; j += kNr)
                    pack_panel<kNr>(
                        Source<T>{g.b + pc * g.b_row + (jc + j) * g.b_col, g.b_col, g.b_row},
                        lesser(kNr, columns - j), depth, packed_b + j * words_of<T>(depth));
#pragma omp barrier
                multiply_block(g, Block<T>{packed_b, rows, jc, columns, pc, depth, sums}, my_rows,
                               my_columns, own_a);
#pragma omp barrier
            }
        };
        for (int64_t jc = 0; jc < g.n; jc += layout.columns)
            for (int64_t ic = 0; ic < g.m; ic += layout.rows)
                add_blocks({ic, lesser(ic + layout.rows, g.m)}, jc);
    });
}

template void gemm(const Gemm<float, float>&, void*, int32_t) noexcept;
template void gemm(const Gemm<Bf16, Bf16>&, void*, int32_t) noexcept;
template void gemm(const Gemm<Bf16, float>&, void*, int32_t) noexcept;
template void gemm(const Gemm<F16, F16>&, void*, int32_t) noexcept;
template void gemm(const Gemm<F16, float>&, void*, int32_t) noexcept;

}  // namespace plumb::cpu::PLUMB_ISA
