#include "kernels/cuda/gemm.h"
#include "kernels/cuda/kernel_list.h"
#include "kernels/cuda/math.h"
#include "kernels/cuda/scratch.h"
#include "kernels/cuda/values.h"

namespace plumb::cuda {

namespace {

constexpr int kThreads = 512;
constexpr int kWarps = kThreads / kWarp;

struct LossRows {
    float* logits;
    double* row_loss;
    const int32_t* targets;
    const float* weights;
    const float* loss_scale;  // nullptr when absent
    const StepScalars* scalars;
    int64_t size;  // vocabulary
};

struct MaxAndSum {
    float max;
    double sum;  // of exp(x - max)
};

// One pass over the row: a thread's sum is scaled whenever its maximum grows.
__device__ __forceinline__ MaxAndSum max_and_sum(const float* x, int64_t size, double* shared) {
    constexpr float kLowest = -3.402823466e38F;
    float max = kLowest, sum = 0;
    const auto take = [&](float v) {
        if (v > max) {
            sum = sum * expf(max - v) + 1.0F;
            max = v;
        } else {
            sum += expf(v - max);
        }
    };
    for (int64_t i = static_cast<int64_t>(threadIdx.x) * 4; i < size; i += kThreads * 4) {
        const Pack<float> pack = load_some(x + i, size - i < 4 ? static_cast<int>(size - i) : 4);
        for (int k = 0; k < 4; ++k)
            if (i + k < size) take(pack.value[k]);
    }
    const float row_max = block_max(max, reinterpret_cast<float*>(shared));
    const double part = static_cast<double>(sum) * static_cast<double>(expf(max - row_max));
    return {row_max, block_sum(part, shared)};
}

// The row becomes (softmax - onehot) * scale, rounded to T, from its first byte on. What a turn
// writes reaches no further than what it has read.
template <typename T>
__device__ __forceinline__ void write_gradients(float* x, int64_t size, int32_t target,
                                                const MaxAndSum& row, double scale) {
    T* gradient = reinterpret_cast<T*>(x);
    const auto factor = static_cast<float>(scale / row.sum);
    // From the logit again: the product below loses what the difference needs when p ~ 1.
    const double at_target = static_cast<double>(x[target]) - static_cast<double>(row.max);
    const auto at_one = static_cast<float>((exp(at_target) / row.sum - 1.0) * scale);
    __syncthreads();
    for (int64_t begin = 0; begin < size; begin += kThreads * 4) {
        const int64_t i = begin + static_cast<int64_t>(threadIdx.x) * 4;
        float out[4] = {};
        if (i < size) {
            const Pack<float> pack =
                load_some(x + i, size - i < 4 ? static_cast<int>(size - i) : 4);
            for (int k = 0; k < 4; ++k)
                out[k] = i + k == target ? at_one : expf(pack.value[k] - row.max) * factor;
        }
        __syncthreads();
        for (int k = 0; k < 4; ++k)
            if (i + k < size) gradient[i + k] = narrow<T>(out[k]);
    }
}

// Weighted cross-entropy of a row of logits a block; for the backward pass also its gradient.
template <typename T, bool backward>
__global__ void __launch_bounds__(kThreads) loss_of_rows(LossRows r) {
    auto* shared = reinterpret_cast<double*>(block_shared());
    float* x = r.logits + static_cast<int64_t>(blockIdx.x) * logits_stride(r.size);
    const float weight = r.weights[blockIdx.x];
    const int32_t target = r.targets[blockIdx.x];
    if (weight == 0.0F) {
        if (backward)
            for (int64_t i = threadIdx.x; i < r.size; i += kThreads)
                reinterpret_cast<T*>(x)[i] = narrow<T>(0.0F);
        if (threadIdx.x == 0) r.row_loss[blockIdx.x] = 0;
        return;
    }
    check_on_device(target >= 0 && target < r.size, "target id outside the vocabulary");
    const MaxAndSum row = max_and_sum(x, r.size, shared);
    if (threadIdx.x == 0) {
        const double at_target = static_cast<double>(x[target]) - static_cast<double>(row.max);
        r.row_loss[blockIdx.x] = static_cast<double>(weight) * (log(row.sum) - at_target);
    }
    if (!backward) return;
    double scale = static_cast<double>(weight) * r.scalars->inverse_weight_sum;
    if (r.loss_scale != nullptr) scale *= static_cast<double>(r.loss_scale[0]);
    write_gradients<T>(x, r.size, target, row, scale);
}

__global__ void __launch_bounds__(kThreads)
    add_losses(double* loss, const double* row_loss, int64_t rows) {
    double sum = 0;
    for (int64_t i = threadIdx.x; i < rows; i += kThreads) sum += row_loss[i];
    sum = block_sum(sum, reinterpret_cast<double*>(block_shared()));
    if (threadIdx.x == 0) *loss += sum;
}

template <typename T>
struct LossOperands {
    double* loss;
    T* dx;
    float* dw;
    const T* x;
    const T* w;
    LossRows rows;  // of the whole batch
    int64_t tokens;
    int64_t hidden;
};

template <typename T>
void chunk_gradients(const LossOperands<T>& o, const KernelArgs& args, int64_t at, int64_t tokens) {
    const int64_t vocabulary = o.rows.size;
    const int64_t stride =
        logits_stride(vocabulary) * static_cast<int64_t>(sizeof(float) / sizeof(T));
    const GemmMatrix by_row{o.rows.logits, stride, false}, by_column{o.rows.logits, stride, true};
    constexpr Dtype kDtype = ValueDtype<T>::value;
    gemm({tokens,
          o.hidden,
          vocabulary,
          kDtype,
          by_row,
          {o.w, o.hidden, true},
          kDtype,
          o.dx + at * o.hidden,
          o.hidden,
          nullptr,
          nullptr,
          args.tf32},
         args.scratch, args.stream);
    if (o.dw == nullptr) return;
    gemm({vocabulary,
          o.hidden,
          tokens,
          kDtype,
          by_column,
          {o.x + at * o.hidden, o.hidden, true},
          Dtype::f32,
          o.dw,
          o.hidden,
          o.dw,
          nullptr,
          args.tf32},
         args.scratch, args.stream);
}

template <typename T, bool backward>
void loss_in_chunks(const LossOperands<T>& o, const KernelArgs& args) {
    const int64_t chunk = args.attrs->loss.chunk < o.tokens ? args.attrs->loss.chunk : o.tokens;
    ASSERT(chunk > 0 && args.scratch_bytes >= head_loss_scratch_bytes(chunk, o.rows.size));
    constexpr int64_t kSharedBytes = kWarps * static_cast<int64_t>(sizeof(double));
    for (int64_t at = 0; at < o.tokens; at += chunk) {
        const int64_t tokens = o.tokens - at < chunk ? o.tokens - at : chunk;
        gemm({tokens,
              o.rows.size,
              o.hidden,
              ValueDtype<T>::value,
              {o.x + at * o.hidden, o.hidden, false},
              {o.w, o.hidden, false},
              Dtype::f32,
              o.rows.logits,
              logits_stride(o.rows.size),
              nullptr,
              nullptr,
              args.tf32},
             args.scratch, args.stream);
        LossRows rows = o.rows;
        rows.targets += at;
        rows.weights += at;
        launch<loss_of_rows<T, backward>>({tokens, kThreads, args.stream, kSharedBytes}, rows);
        launch<add_losses>({1, kThreads, args.stream, kSharedBytes}, o.loss,
                           static_cast<const double*>(rows.row_loss), tokens);
        if (backward) chunk_gradients(o, args, at, tokens);
    }
}

template <typename O>
LossRows loss_rows(const KernelArgs& args) {
    const int64_t vocabulary = args.shape[O::w].dim[0], tokens = args.shape[O::x].rows();
    const int64_t chunk = args.attrs->loss.chunk < tokens ? args.attrs->loss.chunk : tokens;
    char* logits = static_cast<char*>(args.scratch) + kGemmWorkspaceBytes;
    char* row_loss = logits + logits_bytes(chunk, vocabulary);
    return {reinterpret_cast<float*>(logits),
            reinterpret_cast<double*>(row_loss),
            args.at<int32_t>(O::targets),
            args.at<float>(O::loss_weights),
            args.at<float>(O::loss_scale),
            args.scalars,
            vocabulary};
}

template <typename T>
void head_loss(const KernelArgs& args) noexcept {
    using O = HeadLossOperands;
    const Shape& x = args.shape[O::x];
    ASSERT(x.last() == args.shape[O::w].last());
    loss_in_chunks<T, false>(
        LossOperands<T>{args.at<double>(O::loss), nullptr, nullptr, args.at<T>(O::x),
                        args.at<T>(O::w), loss_rows<O>(args), x.rows(), x.last()},
        args);
}

template <typename T>
void head_loss_backward(const KernelArgs& args) noexcept {
    using O = HeadLossBackwardOperands;
    const Shape& x = args.shape[O::x];
    ASSERT(x.last() == args.shape[O::w].last());
    loss_in_chunks<T, true>(
        LossOperands<T>{args.at<double>(O::loss), args.at<T>(O::dx), args.at<float>(O::dw),
                        args.at<T>(O::x), args.at<T>(O::w), loss_rows<O>(args), x.rows(), x.last()},
        args);
}

}  // namespace

void add_head_loss(KernelTable& table) noexcept {
    set_kernels(table, OpKind::head_loss, head_loss<float>, head_loss<Bf16>, head_loss<F16>);
    set_kernels(table, OpKind::head_loss_backward, head_loss_backward<float>,
                head_loss_backward<Bf16>, head_loss_backward<F16>);
}

}  // namespace plumb::cuda
