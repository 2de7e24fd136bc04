// A case with its memory: operands filled with seeded values that make sense together, scratch as
// planned by the traits, red zones behind every buffer, NaN in everything that the kernel must set.
// Path: cold.
#pragma once

#include <cstring>
#include <limits>
#include <memory>
#include <vector>

#include "runtime/base/random.h"
#include "tests/kernels/case_table.h"
#include "tests/kernels/gpu/gpu.h"
#include "tests/kernels/value_bits.h"

namespace plumb::testing {

inline constexpr int64_t kRedBytes = 256;
inline constexpr unsigned char kRed = 0xA5;

// 64-byte aligned bytes with a red zone behind.
class Buffer {
  public:
    explicit Buffer(int64_t size_bytes = 0)
        : size_bytes_(size_bytes), bytes_(static_cast<size_t>(size_bytes + kRedBytes + 64), kRed) {}
    unsigned char* data() {
        const auto address = reinterpret_cast<uintptr_t>(bytes_.data());
        return bytes_.data() + (64 - address % 64) % 64;
    }
    int64_t size_bytes() const { return size_bytes_; }
    bool intact() {
        for (int64_t i = 0; i < kRedBytes; ++i)
            if (data()[size_bytes_ + i] != kRed) return false;
        return true;
    }

  private:
    int64_t size_bytes_;
    std::vector<unsigned char, gpu::Allocator<unsigned char>> bytes_;
};

// Values of operands as doubles, whatever their type.
using Values = std::vector<std::vector<double>>;

inline double number(uint64_t key, int64_t i) {
    return static_cast<double>(static_cast<float>(random_normal(key, static_cast<uint64_t>(i))));
}
inline int64_t integer(uint64_t key, int64_t i, int64_t count) {
    return static_cast<int64_t>(random_uniform(key, static_cast<uint64_t>(i)) *
                                static_cast<double>(count));
}

// Integer operands: ids within their table, positions that never repeat within a sequence, segment
// starts of a random packing, targets that leave the vocabulary only where the weight is zero.
inline void fill_special(const KernelCase& c, uint64_t key, Values* values) {
    auto& v = *values;
    const auto each = [&](int operand, auto make) {
        for (size_t i = 0; i < v[static_cast<size_t>(operand)].size(); ++i)
            v[static_cast<size_t>(operand)][i] = static_cast<double>(make(static_cast<int64_t>(i)));
    };
    const bool back = c.kind == OpKind::embed_backward;
    if (c.kind == OpKind::embed || back) {
        each(3, [&](int64_t i) { return integer(key, i, c.shape[back ? 0 : 1].dim[0]); });
        each(4, [&](int64_t i) { return integer(key + 1, i, c.shape[back ? 1 : 2].dim[0]); });
    }
    if (c.kind == OpKind::rope) each(1, [&](int64_t i) { return integer(key, i, 2000); });
    if (c.kind == OpKind::attention || c.kind == OpKind::attention_backward) {
        const int64_t t_count = c.shape[0].dim[1];
        int64_t start = 0;
        each(c.kind == OpKind::attention ? 3 : 5, [&](int64_t i) {
            const int64_t t = i % t_count;
            if (t == 0 || integer(key, i, 29) == 0) start = t;
            return start;
        });
    }
    if (c.kind == OpKind::attention_cached) {
        // A chunk that begins somewhere inside the cache; its last token is padding in sequence 1.
        const int64_t t_count = c.shape[0].dim[1], cache = c.shape[1].dim[1];
        each(4, [&](int64_t i) {
            const int64_t b = i / t_count, t = i % t_count;
            return b == 1 && t == t_count - 1 ? -1 : integer(key, b, cache - t_count + 1) + t;
        });
    }
    if (c.kind == OpKind::attention_cached && c.shape[5].rank > 0)
        each(5, [&](int64_t i) { return c.shape[1].dim[0] - 1 - i; });
    if (c.kind == OpKind::sample) {
        each(2, [&](int64_t i) { return integer(key, i, 2); });
        each(3, [&](int64_t i) { return 11 + i; });
        each(4, [&](int64_t i) { return c.shape[3].dim[0] - 1 - i; });
    }
    const bool loss_back = c.kind == OpKind::head_loss_backward;
    if (c.kind == OpKind::head_loss || loss_back) {
        const int64_t vocabulary = c.shape[loss_back ? 4 : 2].dim[0];
        const int scale = loss_back ? static_cast<int>(HeadLossBackwardOperands::loss_scale)
                                    : static_cast<int>(HeadLossOperands::loss_scale);
        each(scale, [](int64_t i) { return i == 0 ? 64 : 3; });
        const int at = loss_back ? 5 : 3;
        each(at + 1, [&](int64_t i) { return 0.25 * static_cast<double>(integer(key, i, 5)); });
        each(at, [&](int64_t i) {
            return v[static_cast<size_t>(at + 1)][static_cast<size_t>(i)] == 0
                       ? -100
                       : integer(key + 1, i, vocabulary);
        });
    }
    if (c.kind == OpKind::select_rows)
        each(2, [&](int64_t i) { return integer(key, i, c.shape[1].dim[1]); });
    if (c.kind == OpKind::adamw) {
        each(AdamwOperands::v, [&](int64_t i) { return std::fabs(number(key, i)); });
        v[AdamwOperands::clip] = {0.37, 2.7, 1.0, 0.0};
        if (c.dtype(AdamwOperands::master) == Dtype::u16)
            each(AdamwOperands::master, [&](int64_t i) { return integer(key, i, 65536); });
    }
    if (c.kind == OpKind::grad_norm || c.kind == OpKind::digest) each(0, [](int64_t) { return 0; });
}

// Values are what their operands can hold.
inline void round_operands(const KernelCase& c, Values* values) {
    for (int i = 0; i < c.operands(); ++i)
        for (double& x : (*values)[static_cast<size_t>(i)]) x = rounded_to(c.dtype(i), x);
}

inline Values fill_case(const KernelCase& c, uint64_t seed) {
    Values values(static_cast<size_t>(c.operands()));
    for (int i = 0; i < c.operands(); ++i) {
        if (c.shape[i].rank == 0) continue;
        auto& v = values[static_cast<size_t>(i)];
        v.resize(static_cast<size_t>(c.shape[i].elements()));
        const uint64_t key = random_key(seed, c.name + std::to_string(i));
        for (size_t j = 0; j < v.size(); ++j) v[j] = number(key, static_cast<int64_t>(j));
    }
    fill_special(c, random_key(seed, c.name), &values);
    round_operands(c, &values);
    return values;
}

inline StepScalars test_scalars() {
    StepScalars s{};
    s.lr = 1e-2;
    s.beta1 = 0.9;
    s.beta2 = 0.95;
    s.eps = 1e-8;
    s.weight_decay = 0.1;
    s.clip = 1.0;
    s.bias_correction1 = 1 - 0.9 * 0.9 * 0.9;
    s.bias_correction2 = 1 - 0.95 * 0.95 * 0.95;
    s.inverse_weight_sum = 1.0 / 7.0;
    s.temperature = 0.8;
    s.top_p = 1;
    s.repetition_penalty = 1;
    return s;
}

// The instruction sets whose kernels run here: those of this CPU and a GPU's, real or emulated.
// Threads have no meaning there; more than one stands for the reversed order of everything that a
// GPU may do in any order.
inline std::vector<Isa> tested_isas() {
    std::vector<Isa> isas;
    for (int i = 0; i <= static_cast<int>(host_isa()); ++i) isas.push_back(static_cast<Isa>(i));
    if (const auto isa = gpu::isa()) isas.push_back(*isa);
    return isas;
}
inline Kernel kernel_of(OpKind kind, Dtype dtype, Isa isa) {
    return kernel_table(isa).kernel[static_cast<int>(kind)][value_index(dtype)];
}
inline std::string device_name_of(Isa isa) {
    return std::string(is_cuda(isa) ? "cuda-" : "cpu-") + isa_name(isa);
}

class BoundCase {
  public:
    BoundCase(const BoundCase&) = delete;
    BoundCase& operator=(const BoundCase&) = delete;
    BoundCase(const KernelCase& c, const Values& values, Isa isa, int32_t threads)
        : case_(c),
          isa_(isa),
          threads_(threads),
          scalars_(1, test_scalars()),
          scalars(scalars_[0]) {
        for (int i = 0; i < c.operands(); ++i) {
            if (c.shape[i].rank == 0) continue;
            const Dtype dtype = c.dtype(i);
            operand_[i] = Buffer(c.shape[i].elements() * dtype_bytes(dtype));
            data_[i] = operand_[i].data();
            for (int64_t j = 0; j < c.shape[i].elements(); ++j)
                set(i, j, values[static_cast<size_t>(i)][static_cast<size_t>(j)]);
        }
        const Op op = c.op();
        DeviceRecord device;
        CHECK(named_device(device_name_of(isa).c_str(), threads, &device));
        scratch_ = Buffer(kernel_traits(isa).scratch_bytes(op, c.shape, device));
        std::memset(scratch_.data(), 0xFF, static_cast<size_t>(scratch_.size_bytes()));
    }

    void run() {
        KernelArgs args{
            &case_.attrs, case_.shape,       data_,   scratch_.data(), scratch_.size_bytes(),
            &scalars_[0], case_.micro_batch, threads_};
        args.tf32 = tf32;
        const Kernel kernel = kernel_of(case_.kind, case_.value_dtype, isa_);
        if (is_cuda(isa_))
            gpu::run(kernel, args, threads_ > 1);
        else
            kernel(args);
    }
    // What the kernel must set is NaN before.
    void poison_outputs() {
        for (int i = 0; i < case_.operands(); ++i)
            if (case_.shape[i].rank > 0 && case_.writes(i) && !case_.updates(i))
                std::memset(operand_[i].data(), 0xFF,
                            static_cast<size_t>(operand_[i].size_bytes()));
    }
    bool red_zones_intact() {
        for (int i = 0; i < case_.operands(); ++i)
            if (case_.shape[i].rank > 0 && !operand_[i].intact()) return false;
        return scratch_.intact();
    }
    double get(int i, int64_t j) {
        switch (case_.dtype(i)) {
            case Dtype::f64:
                return at<double>(i)[j];
            case Dtype::i32:
                return static_cast<double>(at<int32_t>(i)[j]);
            case Dtype::i64:
                return static_cast<double>(at<int64_t>(i)[j]);
            case Dtype::bf16:
            case Dtype::f16:
                return half_value(case_.dtype(i), at<uint16_t>(i)[j]);
            case Dtype::u16:
                return static_cast<double>(at<uint16_t>(i)[j]);
            case Dtype::u8:
                return static_cast<double>(at<uint8_t>(i)[j]);
            default:
                return static_cast<double>(at<float>(i)[j]);
        }
    }
    void set(int i, int64_t j, double value) {
        switch (case_.dtype(i)) {
            case Dtype::f64:
                at<double>(i)[j] = value;
                break;
            case Dtype::i32:
                at<int32_t>(i)[j] = static_cast<int32_t>(value);
                break;
            case Dtype::i64:
                at<int64_t>(i)[j] = static_cast<int64_t>(value);
                break;
            case Dtype::bf16:
            case Dtype::f16:
                at<uint16_t>(i)[j] = half_bits(case_.dtype(i), value);
                break;
            case Dtype::u16:
                at<uint16_t>(i)[j] = static_cast<uint16_t>(value);
                break;
            case Dtype::u8:
                at<uint8_t>(i)[j] = static_cast<uint8_t>(value);
                break;
            default:
                at<float>(i)[j] = static_cast<float>(value);
        }
    }
    template <typename T>
    T* at(int i) {
        return reinterpret_cast<T*>(operand_[i].data());
    }
    Buffer& operand(int i) { return operand_[i]; }
    Buffer& scratch() { return scratch_; }
    KernelCase& kernel_case() { return case_; }

  private:
    KernelCase case_;
    Isa isa_;
    int32_t threads_;
    Buffer operand_[kMaxOperands];
    Buffer scratch_;
    void* data_[kMaxOperands] = {};

    std::vector<StepScalars, gpu::Allocator<StepScalars>> scalars_;

  public:
    StepScalars& scalars;
    bool tf32 = false;
};

}  // namespace plumb::testing
