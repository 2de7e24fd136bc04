#include "kernels/cpu/gemm.h"
#include "kernels/cpu/kernel_list.h"
#include "kernels/cpu/vec.h"

namespace plumb::cpu::PLUMB_ISA {
namespace {

// sums[m * R + o] = x row m . w row o for M rows of x and R rows of w, each a sum over lanes.
template <int M, int R>
PLUMB_INLINE void dot_rows(const float* x, const float* w, int64_t depth, float* sums) {
    VecF sum[static_cast<size_t>(M)][static_cast<size_t>(R)] = {};
    int64_t p = 0;
    for (; p + kLanes <= depth; p += kLanes) {
#pragma GCC unroll 4
        for (int o = 0; o < R; ++o) {
            const VecF row = load(w + o * depth + p);
#pragma GCC unroll 4
            for (int m = 0; m < M; ++m) sum[m][o] += row * load(x + m * depth + p);
        }
    }
    for (int o = 0; o < R; ++o) {
        for (int m = 0; m < M; ++m) {
            float tail = 0;
            for (int64_t q = p; q < depth; ++q) tail += w[o * depth + q] * x[m * depth + q];
            sums[m * R + o] = sum_lanes(sum[m][o]) + tail;
        }
    }
}

struct StreamArgs {
    const Gemm* g;
    int64_t row;  // first row of x
    Range outputs;
};

template <int M, int R>
PLUMB_INLINE void stream_outputs(const StreamArgs& s, int64_t o) {
    const Gemm& g = *s.g;
    float sums[static_cast<size_t>(M * R)];
    dot_rows<M, R>(g.a + s.row * g.k, g.b + o * g.k, g.k, sums);
    for (int m = 0; m < M; ++m) {
        for (int r = 0; r < R; ++r) {
            const int64_t at = (s.row + m) * g.n + o + r;
            float v = sums[m * R + r];
            if (g.bias != nullptr) v += g.bias[o + r];
            if (g.pre != nullptr) g.pre[at] = v;
            if (g.gelu) v = gelu_of(splat(v))[0];
            if (g.residual != nullptr) v += g.residual[at];
            g.c[at] = v;
        }
    }
}

template <int M>
void stream_rows(const StreamArgs& s) {
    constexpr int kRows = M <= 2 ? 4 : 2;
    int64_t o = s.outputs.begin;
    for (; o + kRows <= s.outputs.end; o += kRows) stream_outputs<M, kRows>(s, o);
    for (; o < s.outputs.end; ++o) stream_outputs<M, 1>(s, o);
}

// Few rows (decode): reads w once, in place, by dot products; packing would cost more than it
// saves.
void stream_matmul(const Gemm& g, int32_t threads) {
    constexpr int64_t kBlockOutputs = 64;  // rows of w that stay in cache for the next rows of x
    run_team(threads, [&](int64_t rank, int64_t team) {
        const Range range = split(g.n, kLanesMax, team, rank);
        for (int64_t o = range.begin; o < range.end; o += kBlockOutputs) {
            const Range outputs{o, lesser(o + kBlockOutputs, range.end)};
            int64_t row = 0;
            for (; row + 4 <= g.m; row += 4) stream_rows<4>({&g, row, outputs});
            if (g.m - row == 3) stream_rows<3>({&g, row, outputs});
            if (g.m - row == 2) stream_rows<2>({&g, row, outputs});
            if (g.m - row == 1) stream_rows<1>({&g, row, outputs});
        }
    });
}

// dbias_O += column sums of dy_NO: the rows of a block are summed, then the block added.
void add_column_sums(const float* dy, int64_t rows, int64_t size, float* dbias, int32_t threads) {
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

}  // namespace

void matmul(const KernelArgs& args) noexcept {
    using O = MatmulOperands;
    const int64_t rows = rows_of(args.shape[O::x]), inputs = last_of(args.shape[O::x]);
    const int64_t outputs = args.shape[O::w].dim[0];
    ASSERT(last_of(args.shape[O::w]) == inputs && last_of(args.shape[O::y]) == outputs &&
           rows_of(args.shape[O::y]) == rows);
    Gemm g{rows,
           outputs,
           inputs,
           floats(args, O::x),
           inputs,
           1,
           floats(args, O::w),
           1,
           inputs,
           floats(args, O::y),
           false};
    g.bias = floats(args, O::bias);
    g.gelu = args.attrs->matmul.activation == Activation::gelu_tanh;
    g.pre = floats(args, O::pre);
    g.residual = floats(args, O::residual);
    if (rows <= kMatmulStreamRows || args.attrs->matmul.by_row != 0)
        stream_matmul(g, args.threads);
    else
        gemm(g, static_cast<float*>(args.scratch), args.threads);
}

void matmul_dx(const KernelArgs& args) noexcept {
    using O = MatmulDxOperands;
    const int64_t rows = rows_of(args.shape[O::dy]), outputs = last_of(args.shape[O::dy]);
    const int64_t inputs = last_of(args.shape[O::w]);
    ASSERT(args.shape[O::w].dim[0] == outputs && last_of(args.shape[O::dx]) == inputs &&
           rows_of(args.shape[O::dx]) == rows);
    const Gemm g{rows,
                 inputs,
                 outputs,
                 floats(args, O::dy),
                 outputs,
                 1,
                 floats(args, O::w),
                 inputs,
                 1,
                 floats(args, O::dx),
                 args.attrs->matmul.accumulate != 0};
    gemm(g, static_cast<float*>(args.scratch), args.threads);
}

void matmul_dw(const KernelArgs& args) noexcept {
    using O = MatmulDwOperands;
    const int64_t rows = rows_of(args.shape[O::dy]), outputs = last_of(args.shape[O::dy]);
    const int64_t inputs = last_of(args.shape[O::x]);
    ASSERT(rows_of(args.shape[O::x]) == rows);
    if (args.data[O::dw] != nullptr) {
        const Gemm g{outputs,
                     inputs,
                     rows,
                     floats(args, O::dy),
                     1,
                     outputs,
                     floats(args, O::x),
                     inputs,
                     1,
                     floats(args, O::dw),
                     true};
        gemm(g, static_cast<float*>(args.scratch), args.threads);
    }
    if (args.data[O::dbias] != nullptr)
        add_column_sums(floats(args, O::dy), rows, outputs, floats(args, O::dbias), args.threads);
}

}  // namespace plumb::cpu::PLUMB_ISA
