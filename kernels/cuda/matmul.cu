#include <type_traits>

#include "kernels/cuda/gemm.h"
#include "kernels/cuda/kernel_list.h"
#include "kernels/cuda/math.h"
#include "kernels/cuda/scratch.h"
#include "kernels/cuda/values.h"

namespace plumb::cuda {

namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / kWarp;

// What follows a product: y = f(v + bias) + residual, f's argument rounded and stored in pre.
template <typename T, typename C>
struct Epilogue {
    C* y;
    T* pre;
    const float* bias;
    const T* residual;
    bool gelu;
};

// Few rows (decode), or rows whose bits may not depend on each other: a warp makes one output of up
// to kRows rows, so that w is read once by them; its lanes take packs of the sum in turns.
constexpr int kRows = static_cast<int>(kMatmulStreamRows);

template <typename T, typename C>
__device__ __forceinline__ void store_output(const Epilogue<T, C>& e, int64_t at, int64_t column,
                                             float v) {
    if (e.bias != nullptr) v += e.bias[column];
    if (e.gelu) v = rounded<T>(v);
    if (e.pre != nullptr) e.pre[at] = narrow<T>(v);
    if (e.gelu) v = gelu_of(v);
    if (e.residual != nullptr) v += widen(e.residual[at]);
    e.y[at] = narrow<C>(v);
}

template <int rows, typename T>
__device__ __forceinline__ void dot_rows(const T* x, const T* w, int64_t depth,
                                         float (&sum)[rows]) {
    const int lane = static_cast<int>(threadIdx.x) % kWarp;
    if (depth % kPack<T> == 0) {
#pragma unroll 4
        for (int64_t p = lane * kPack<T>; p < depth; p += kWarp * kPack<T>) {
            const Pack<T> row = load_pack(w + p);
#pragma unroll
            for (int r = 0; r < rows; ++r) {
                const Pack<T> in = load_pack(x + r * depth + p);
#pragma unroll
                for (int k = 0; k < kPack<T>; ++k)
                    sum[r] += widen(row.value[k]) * widen(in.value[k]);
            }
        }
    } else {
        for (int64_t p = lane; p < depth; p += kWarp)
            for (int r = 0; r < rows; ++r) sum[r] += widen(w[p]) * widen(x[r * depth + p]);
    }
    for (int r = 0; r < rows; ++r) sum[r] = warp_sum(sum[r]);
}

template <int rows, typename T, typename C>
__global__ void __launch_bounds__(kThreads)
    stream_outputs(Epilogue<T, C> e, const T* x, const T* w, int64_t first_row, int64_t outputs,
                   int64_t depth) {
    const int64_t column = static_cast<int64_t>(blockIdx.x) * kWarps + threadIdx.x / kWarp;
    if (column >= outputs) return;
    const int64_t row = first_row + static_cast<int64_t>(blockIdx.y) * rows;
    float sum[rows] = {};
    dot_rows<rows>(x + row * depth, w + column * depth, depth, sum);
    if (threadIdx.x % kWarp != 0) return;
    for (int r = 0; r < rows; ++r) store_output(e, (row + r) * outputs + column, column, sum[r]);
}

template <int rows, typename T, typename C>
void stream_rows(const KernelArgs& args, const Epilogue<T, C>& e, int64_t first_row,
                 int64_t row_groups) {
    using O = MatmulOperands;
    const int64_t outputs = args.shape[O::w].dim[0];
    launch<stream_outputs<rows, T, C>>(
        {ceil_div(outputs, kWarps), kThreads, args.stream, 0, row_groups}, e,
        static_cast<const T*>(args.at<T>(O::x)), static_cast<const T*>(args.at<T>(O::w)), first_row,
        outputs, args.shape[O::x].last());
}

template <typename T, typename C>
void stream_matmul(const KernelArgs& args, const Epilogue<T, C>& e, int64_t rows) {
    stream_rows<kRows>(args, e, 0, rows / kRows);
    int64_t row = rows / kRows * kRows;
    const auto rest = [&](auto count) {
        constexpr int kCount = decltype(count)::value;
        if (rows - row < kCount) return;
        stream_rows<kCount>(args, e, row, 1);
        row += kCount;
    };
    rest(std::integral_constant<int, 4>{});
    rest(std::integral_constant<int, 2>{});
    rest(std::integral_constant<int, 1>{});
}

// The argument of GELU becomes its value, in place or from pre, and the residual is added.
template <typename T>
__global__ void __launch_bounds__(kThreads)
    gelu_and_add(T* y, const T* pre, const T* residual, int64_t count) {
    for_each_pack<T>(count, [&](int64_t i, int n) {
        Pack<T> v = load_some(pre + i, n);
        Pack<T> r = {};
        if (residual != nullptr) r = load_some(residual + i, n);
        for (int k = 0; k < kPack<T>; ++k)
            v.value[k] =
                narrow<T>(residual == nullptr ? gelu_of(widen(v.value[k]))
                                              : gelu_of(widen(v.value[k])) + widen(r.value[k]));
        store_some(y + i, v, n);
    });
}

template <typename T>
__global__ void __launch_bounds__(kThreads) round_bias(T* to, const float* from, int64_t count) {
    const int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
    if (i < count) to[i] = narrow<T>(from[i]);
}

// cuBLASLt adds a bias of the result's dtype: one of 16 bits enters rounded.
template <typename T, typename C>
const void* bias_for_product(const KernelArgs& args, const float* bias, int64_t outputs) {
    if (bias == nullptr || sizeof(C) == sizeof(float)) return bias;
    T* to = reinterpret_cast<T*>(static_cast<char*>(args.scratch) + kGemmWorkspaceBytes);
    launch<round_bias<T>>({ceil_div(outputs, kThreads), kThreads, args.stream}, to, bias, outputs);
    return to;
}

template <typename T, typename C>
void matmul_into(const KernelArgs& args) {
    using O = MatmulOperands;
    const int64_t rows = args.shape[O::x].rows(), inputs = args.shape[O::x].last();
    const int64_t outputs = args.shape[O::w].dim[0];
    ASSERT(args.shape[O::w].last() == inputs && args.shape[O::y].last() == outputs &&
           args.shape[O::y].rows() == rows);
    const bool gelu = args.attrs->matmul.activation == Activation::gelu_tanh;
    const Epilogue<T, C> e{args.at<C>(O::y), args.at<T>(O::pre), args.at<float>(O::bias),
                           args.at<T>(O::residual), gelu};
    if (rows <= kMatmulStreamRows || args.attrs->matmul.by_row != 0) {
        stream_matmul(args, e, rows);
        return;
    }
    ASSERT(sizeof(C) == sizeof(T) || (!gelu && e.residual == nullptr));
    Gemm g{rows,
           outputs,
           inputs,
           ValueDtype<T>::value,
           {args.at<T>(O::x), inputs, false},
           {args.at<T>(O::w), inputs, false},
           ValueDtype<C>::value,
           e.y,
           outputs};
    g.bias = bias_for_product<T, C>(args, e.bias, outputs);
    g.tf32 = args.tf32;
    if (!gelu) {
        g.add = e.residual;
        gemm(g, args.scratch, args.stream);
        return;
    }
    if (e.pre != nullptr) g.c = e.pre;
    gemm(g, args.scratch, args.stream);
    const int64_t count = rows * outputs;
    launch<gelu_and_add<T>>({pack_blocks(count, kPack<T>, kThreads), kThreads, args.stream},
                            static_cast<T*>(static_cast<void*>(e.y)),
                            static_cast<const T*>(static_cast<const void*>(g.c)), e.residual,
                            count);
}

template <typename T>
void matmul(const KernelArgs& args) noexcept {
    if (args.attrs->matmul.wide != 0)
        matmul_into<T, float>(args);
    else
        matmul_into<T, T>(args);
}

template <typename T>
void matmul_dx(const KernelArgs& args) noexcept {
    using O = MatmulDxOperands;
    const int64_t rows = args.shape[O::dy].rows(), outputs = args.shape[O::dy].last();
    const int64_t inputs = args.shape[O::w].last();
    ASSERT(args.shape[O::w].dim[0] == outputs && args.shape[O::dx].last() == inputs &&
           args.shape[O::dx].rows() == rows);
    Gemm g{rows,
           inputs,
           outputs,
           ValueDtype<T>::value,
           {args.at<T>(O::dy), outputs, false},
           {args.at<T>(O::w), inputs, true},
           ValueDtype<T>::value,
           args.at<T>(O::dx),
           inputs};
    if (args.attrs->matmul.accumulate != 0) g.add = g.c;
    g.tf32 = args.tf32;
    gemm(g, args.scratch, args.stream);
}

// Column sums of dy: each thread sums a column of a block of rows in order, then another kernel the
// blocks in order.
template <typename T>
__global__ void __launch_bounds__(kThreads)
    sum_blocks_of_rows(float* sums, const T* dy, int64_t rows, int64_t columns) {
    const int64_t column = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
    if (column >= columns) return;
    for (int64_t block = blockIdx.y; block * kColumnSumRows < rows; block += gridDim.y) {
        const int64_t end =
            (block + 1) * kColumnSumRows < rows ? (block + 1) * kColumnSumRows : rows;
        float sum = 0;
        for (int64_t row = block * kColumnSumRows; row < end; ++row)
            sum += widen(dy[row * columns + column]);
        sums[block * columns + column] = sum;
    }
}
__global__ void __launch_bounds__(kThreads)
    add_sums_of_blocks(float* to, const float* sums, int64_t blocks, int64_t columns) {
    const int64_t column = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
    if (column >= columns) return;
    float sum = to[column];
    for (int64_t block = 0; block < blocks; ++block) sum += sums[block * columns + column];
    to[column] = sum;
}

template <typename T>
void matmul_dw(const KernelArgs& args) noexcept {
    using O = MatmulDwOperands;
    const int64_t rows = args.shape[O::dy].rows(), outputs = args.shape[O::dy].last();
    const int64_t inputs = args.shape[O::x].last();
    ASSERT(args.shape[O::x].rows() == rows);
    const T* dy = args.at<T>(O::dy);
    if (args.has(O::dw)) {
        Gemm g{outputs,
               inputs,
               rows,
               ValueDtype<T>::value,
               {dy, outputs, true},
               {args.at<T>(O::x), inputs, true},
               Dtype::f32,
               args.at<float>(O::dw),
               inputs};
        g.add = g.c;
        g.tf32 = args.tf32;
        gemm(g, args.scratch, args.stream);
    }
    if (!args.has(O::dbias)) return;
    constexpr int64_t kBlocksMax = 65535;
    const int64_t blocks = ceil_div(rows, kColumnSumRows), across = ceil_div(outputs, kThreads);
    auto* sums = reinterpret_cast<float*>(static_cast<char*>(args.scratch) + kGemmWorkspaceBytes);
    launch<sum_blocks_of_rows<T>>(
        {across, kThreads, args.stream, 0, blocks < kBlocksMax ? blocks : kBlocksMax}, sums, dy,
        rows, outputs);
    launch<add_sums_of_blocks>({across, kThreads, args.stream}, args.at<float>(O::dbias),
                               static_cast<const float*>(sums), blocks, outputs);
}

}  // namespace

void add_matmul(KernelTable& table) noexcept {
    set_kernels(table, OpKind::matmul, matmul<float>, matmul<Bf16>, matmul<F16>);
    set_kernels(table, OpKind::matmul_dx, matmul_dx<float>, matmul_dx<Bf16>, matmul_dx<F16>);
    set_kernels(table, OpKind::matmul_dw, matmul_dw<float>, matmul_dw<Bf16>, matmul_dw<F16>);
}

}  // namespace plumb::cuda
