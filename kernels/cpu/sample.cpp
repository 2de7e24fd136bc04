#include "kernels/cpu/kernel_list.h"
#include "kernels/cpu/vec.h"
#include "runtime/base/random.h"

namespace plumb::cpu::PLUMB_ISA {
namespace {

int64_t argmax(const float* x, int64_t size) {
    int64_t best = 0;
    for (int64_t i = 1; i < size; ++i)
        if (x[i] > x[best]) best = i;
    return best;
}

// Inverse of the cumulative distribution at u, in fp64 and in order of the tokens.
int64_t draw(const float* x, int64_t size, double temperature, double u) {
    const double max = static_cast<double>(x[argmax(x, size)]);
    const double rate = 1.0 / temperature;
    double total = 0;
    for (int64_t i = 0; i < size; ++i)
        total += __builtin_exp((static_cast<double>(x[i]) - max) * rate);
    const double goal = u * total;
    double sum = 0;
    int64_t last = 0;
    for (int64_t i = 0; i < size; ++i) {
        const double p = __builtin_exp((static_cast<double>(x[i]) - max) * rate);
        sum += p;
        if (sum > goal) return i;
        if (p > 0) last = i;  // u < 1, so this is reached only through rounding
    }
    return last;
}

}  // namespace

template <typename T>
void select_rows(const KernelArgs& args) noexcept {
    using O = SelectRowsOperands;
    const int64_t batch = args.shape[O::x].dim[0], tokens = args.shape[O::x].dim[1];
    const int64_t size = last_of(args.shape[O::x]);
    ASSERT(elements_of(args.shape[O::y]) == batch * size);
    for (int64_t b = 0; b < batch; ++b) {
        const int64_t row = ints(args, O::rows)[b];
        CHECK_NOTE(row >= 0 && row < tokens, "selected row outside the sequence");
        __builtin_memcpy(values<T>(args, O::y) + b * size,
                         values<T>(args, O::x) + (b * tokens + row) * size,
                         static_cast<size_t>(size) * sizeof(T));
    }
}

PLUMB_VALUE_KERNEL(select_rows)

void sample(const KernelArgs& args) noexcept {
    using O = SampleOperands;
    const int64_t batch = args.shape[O::logits].dim[0], size = last_of(args.shape[O::logits]);
    ASSERT(elements_of(args.shape[O::token]) == batch);
    const StepScalars& s = *args.scalars;
    int32_t* token = static_cast<int32_t*>(args.data[O::token]);
    for (int64_t b = 0; b < batch; ++b) {
        const float* logits = floats(args, O::logits) + b * size;
        if (s.temperature <= 0.0) {
            token[b] = static_cast<int32_t>(argmax(logits, size));
            continue;
        }
        const uint64_t counter =
            s.sample_counter * static_cast<uint64_t>(batch) + static_cast<uint64_t>(b);
        token[b] = static_cast<int32_t>(
            draw(logits, size, s.temperature, random_uniform(s.sample_key, counter)));
    }
}

}  // namespace plumb::cpu::PLUMB_ISA
