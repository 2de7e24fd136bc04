#include "kernels/cpu/gemm.h"
#include "kernels/cpu/kernel_list.h"
#include "kernels/cpu/vec.h"

namespace plumb::cpu::PLUMB_ISA {
namespace {

// sums[m * R + o] = x row m . w row o for M rows of x and R rows of w, each a sum over lanes.
template <int M, int R, typename T>
PLUMB_INLINE void dot_rows(const T* x, const T* w, int64_t depth, float* sums) {
    constexpr int64_t kStep = kWordLanes<T>;
    VecF sum[static_cast<size_t>(M)][static_cast<size_t>(R)] = {};
    int64_t p = 0;
    for (; p + kStep <= depth; p += kStep) {
#pragma GCC unroll 4
        for (int o = 0; o < R; ++o) {
            const auto row = load_words(w + o * depth + p);
#pragma GCC unroll 4
            for (int m = 0; m < M; ++m)
                sum[m][o] = add_product(sum[m][o], row, load_words(x + m * depth + p));
        }
    }
    for (int o = 0; o < R; ++o) {
        for (int m = 0; m < M; ++m) {
            float tail = 0;
            for (int64_t q = p; q < depth; ++q)
                tail += value_at(w + o * depth + q) * value_at(x + m * depth + q);
            sums[m * R + o] = sum_lanes(sum[m][o]) + tail;
        }
    }
}

template <typename T, typename C>
struct StreamArgs {
    const Gemm<T, C>* g;
    int64_t row;  // first row of x
    Range outputs;
};

template <int M, int R, typename T, typename C>
PLUMB_INLINE void stream_outputs(const StreamArgs<T, C>& s, int64_t o) {
    const Gemm<T, C>& g = *s.g;
    float sums[static_cast<size_t>(M * R)];
    dot_rows<M, R>(g.a + s.row * g.k, g.b + o * g.k, g.k, sums);
    for (int m = 0; m < M; ++m) {
        for (int r = 0; r < R; ++r) {
            const int64_t at = (s.row + m) * g.n + o + r;
            VecF v = splat(sums[m * R + r]);
            if (g.bias != nullptr) v += splat(g.bias[o + r]);
            if (g.gelu) v = rounded_as(g.residual, v);
            if (g.pre != nullptr) store_part(g.pre + at, v, 1);
            if (g.gelu) v = gelu_of(v);
            if (g.residual != nullptr) v += splat(value_at(g.residual + at));
            store_part(g.c + at, v, 1);
        }
    }
}

template <int M, typename T, typename C>
void stream_rows(const StreamArgs<T, C>& s) {
    constexpr int kRows = M <= 2 ? 4 : 2;
    int64_t o = s.outputs.begin;
    for (; o + kRows <= s.outputs.end; o += kRows) stream_outputs<M, kRows>(s, o);
    for (; o < s.outputs.end; ++o) stream_outputs<M, 1>(s, o);
}

// Few rows (decode): reads w once, in place, by dot products; packing would cost more than it
// saves. Its sums run in another order than gemm's, with lanes of the instruction set: they agree
// with gemm's within fp32 error, and with themselves for any number of threads.
template <typename T, typename C>
void stream_matmul(const Gemm<T, C>& g, int32_t threads) {
    constexpr int64_t kBlockOutputs = 64;  // rows of w that stay in cache for the next rows of x
    run_team(threads, [&](int64_t rank, int64_t team) {
        const Range range = split(g.n, kLanesMax, team, rank);
        for (int64_t o = range.begin; o < range.end; o += kBlockOutputs) {
            const Range outputs{o, lesser(o + kBlockOutputs, range.end)};
            int64_t row = 0;
            for (; row + 4 <= g.m; row += 4) stream_rows<4>(StreamArgs<T, C>{&g, row, outputs});
            if (g.m - row == 3) stream_rows<3>(StreamArgs<T, C>{&g, row, outputs});
            if (g.m - row == 2) stream_rows<2>(StreamArgs<T, C>{&g, row, outputs});
            if (g.m - row == 1) stream_rows<1>(StreamArgs<T, C>{&g, row, outputs});
        }
    });
}

// dbias_O += column sums of dy_NO: the rows of a block are summed, then the block added.
template <typename T>
void add_column_sums(const T* dy, int64_t rows, int64_t size, float* dbias, int32_t threads) {
    constexpr int64_t kRowBlock = 32;
    run_team(threads, [&](int64_t rank, int64_t team) {
        const Range range = split(size, kLanesMax, team, rank);
        for (int64_t block = 0; block < rows; block += kRowBlock) {
            const int64_t end = lesser(block + kRowBlock, rows);
            for (int64_t i = range.begin; i < range.end; i += kLanes) {
                const int64_t lanes = range.end - i;
                VecF sum{};
                for (int64_t row = block; row < end; ++row)
                    sum += load_part(dy + row * size + i, lanes);
                store_part(dbias + i, load_part(dbias + i, lanes) + sum, lanes);
            }
        }
    });
}

template <typename T, typename C>
void matmul_into(const KernelArgs& args) {
    using O = MatmulOperands;
    const int64_t rows = rows_of(args.shape[O::x]), inputs = last_of(args.shape[O::x]);
    const int64_t outputs = args.shape[O::w].dim[0];
    ASSERT(last_of(args.shape[O::w]) == inputs && last_of(args.shape[O::y]) == outputs &&
           rows_of(args.shape[O::y]) == rows);
    Gemm<T, C> g{rows,
                 outputs,
                 inputs,
                 values<T>(args, O::x),
                 inputs,
                 1,
                 values<T>(args, O::w),
                 1,
                 inputs,
                 values<C>(args, O::y),
                 false};
    g.bias = floats(args, O::bias);
    g.gelu = args.attrs->matmul.activation == Activation::gelu_tanh;
    g.pre = values<T>(args, O::pre);
    g.residual = values<T>(args, O::residual);
    if (rows <= kMatmulStreamRows || args.attrs->matmul.by_row != 0)
        stream_matmul(g, args.threads);
    else
        gemm(g, args.scratch, args.threads);
}

}  // namespace

template <typename T>
void matmul(const KernelArgs& args) noexcept {
    if (args.attrs->matmul.wide != 0)
        matmul_into<T, float>(args);
    else
        matmul_into<T, T>(args);
}
PLUMB_VALUE_KERNEL(matmul)

template <typename T>
void matmul_dx(const KernelArgs& args) noexcept {
    using O = MatmulDxOperands;
    const int64_t rows = rows_of(args.shape[O::dy]), outputs = last_of(args.shape[O::dy]);
    const int64_t inputs = last_of(args.shape[O::w]);
    ASSERT(args.shape[O::w].dim[0] == outputs && last_of(args.shape[O::dx]) == inputs &&
           rows_of(args.shape[O::dx]) == rows);
    const Gemm<T, T> g{rows,
                       inputs,
                       outputs,
                       values<T>(args, O::dy),
                       outputs,
                       1,
                       values<T>(args, O::w),
                       inputs,
                       1,
                       values<T>(args, O::dx),
                       args.attrs->matmul.accumulate != 0};
    gemm(g, args.scratch, args.threads);
}
PLUMB_VALUE_KERNEL(matmul_dx)

template <typename T>
void matmul_dw(const KernelArgs& args) noexcept {
    using O = MatmulDwOperands;
    const int64_t rows = rows_of(args.shape[O::dy]), outputs = last_of(args.shape[O::dy]);
    const int64_t inputs = last_of(args.shape[O::x]);
    ASSERT(rows_of(args.shape[O::x]) == rows);
    const T* dy = values<T>(args, O::dy);
    if (args.data[O::dw] != nullptr) {
        const Gemm<T, float> g{outputs,
                               inputs,
                               rows,
                               dy,
                               1,
                               outputs,
                               values<T>(args, O::x),
                               inputs,
                               1,
                               floats(args, O::dw),
                               true};
        gemm(g, args.scratch, args.threads);
    }
    if (args.data[O::dbias] != nullptr)
        add_column_sums(dy, rows, outputs, floats(args, O::dbias), args.threads);
}
PLUMB_VALUE_KERNEL(matmul_dw)

}  // namespace plumb::cpu::PLUMB_ISA
