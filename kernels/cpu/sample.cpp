#include "kernels/cpu/kernel_list.h"
#include "kernels/cpu/vec.h"
#include "runtime/base/random.h"

namespace plumb::cpu::PLUMB_ISA {
namespace {

// One sequence's choice. Tokens stay in their order: what stays is found by radix selection over
// the bits of the logits, which needs no sorted copy and takes the same time for any of them.
struct Choice {
    const float* logits;
    const uint8_t* seen;
    int64_t size;
    float penalty;
    double* weight;  // exp((logit - max) / temperature); 0: filtered out
};

PLUMB_INLINE float logit_of(const Choice& c, int64_t i) {
    const float x = c.logits[i];
    if (c.seen[i] == 0) return x;
    return x > 0 ? x / c.penalty : x * c.penalty;
}

// Integers in the order of the numbers.
PLUMB_INLINE uint32_t key_of(const Choice& c, int64_t i) {
    const float x = logit_of(c, i) + 0.0F;  // -0 becomes 0, its equal
    uint32_t bits;
    __builtin_memcpy(&bits, &x, sizeof bits);
    return (bits >> 31) != 0 ? ~bits : bits | 0x80000000U;
}

int64_t argmax(const Choice& c) {
    int64_t best = 0;
    for (int64_t i = 1; i < c.size; ++i)
        if (logit_of(c, i) > logit_of(c, best)) best = i;
    return best;
}

// What counts towards a filter's goal: one each (top-k), or the weights (top-p).
enum class Measure { count, weight };

PLUMB_INLINE double measured(const Choice& c, Measure measure, int64_t i) {
    if (measure == Measure::weight) return c.weight[i];
    return c.weight[i] > 0 ? 1.0 : 0.0;
}

// Keeps the fewest tokens of largest logits whose measure reaches the goal, of equal logits the
// first ones; the others' weights become 0. Byte by byte of the key: sums per value of the byte,
// from the highest down to where the goal is reached.
void keep_largest(const Choice& c, Measure measure, double goal) {
    uint32_t prefix = 0;  // of the last kept token's key
    double above = 0;     // measure of the keys over it
    for (int shift = 24; shift >= 0; shift -= 8) {
        double sum[256] = {};
        const uint32_t mask = shift == 24 ? 0 : ~uint32_t{0} << (shift + 8);
        for (int64_t i = 0; i < c.size; ++i) {
            const uint32_t key = key_of(c, i);
            if ((key & mask) == prefix) sum[key >> shift & 255U] += measured(c, measure, i);
        }
        // Rounding alone can keep all sums below the goal; then the lowest that counts is the last.
        int last = 255, lowest = 0;
        while (lowest < 255 && !(sum[lowest] > 0)) ++lowest;
        for (; last > lowest && above + sum[last] < goal; --last) above += sum[last];
        prefix |= static_cast<uint32_t>(last) << shift;
    }
    for (int64_t i = 0; i < c.size; ++i) {
        const uint32_t key = key_of(c, i);
        if (key > prefix) continue;
        if (key == prefix && above < goal)
            above += measured(c, measure, i);
        else
            c.weight[i] = 0;
    }
}

double sum_of_weights(const Choice& c) {
    double total = 0;
    for (int64_t i = 0; i < c.size; ++i) total += c.weight[i];
    return total;
}

// Inverse of the cumulative distribution at u, in fp64 and in order of the tokens.
int64_t draw(const Choice& c, const StepScalars& s, double u) {
    const double max = static_cast<double>(logit_of(c, argmax(c)));
    const double rate = 1.0 / s.temperature;
    for (int64_t i = 0; i < c.size; ++i)
        c.weight[i] = __builtin_exp((static_cast<double>(logit_of(c, i)) - max) * rate);
    if (s.top_k > 0 && s.top_k < c.size)
        keep_largest(c, Measure::count, static_cast<double>(s.top_k));
    if (s.top_p < 1.0) keep_largest(c, Measure::weight, s.top_p * sum_of_weights(c));
    const double goal = u * sum_of_weights(c);
    double sum = 0;
    int64_t last = 0;
    for (int64_t i = 0; i < c.size; ++i) {
        sum += c.weight[i];
        if (sum > goal) return i;
        if (c.weight[i] > 0) last = i;  // u < 1, so this is reached only through rounding
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
    const int64_t sequences = args.shape[O::draws].dim[0];
    ASSERT(elements_of(args.shape[O::token]) == batch);
    ASSERT(elements_of(args.shape[O::seen]) == sequences * size);
    ASSERT(args.scratch_bytes >= sample_scratch_floats(batch, size, args.threads) * 4);
    const StepScalars& s = *args.scalars;
    const int64_t* draws = static_cast<const int64_t*>(args.data[O::draws]);
    const uint8_t* seen = static_cast<const uint8_t*>(args.data[O::seen]);
    int32_t* token = static_cast<int32_t*>(args.data[O::token]);
    run_team(batch == 1 ? 1 : args.threads, [&](int64_t rank, int64_t team) {
        float* scratch = static_cast<float*>(args.scratch) + rank * sample_row_floats(size);
        for (int64_t b = rank; b < batch; b += team) {
            const bool listed = args.data[O::sequences] != nullptr;
            const int64_t n = listed ? ints(args, O::sequences)[b] : b;
            CHECK_NOTE(n >= 0 && n < sequences, "sampled sequence outside the batch");
            const Choice c{floats(args, O::logits) + b * size, seen + n * size, size,
                           static_cast<float>(s.repetition_penalty),
                           static_cast<double*>(static_cast<void*>(scratch))};
            const double u = random_uniform(static_cast<uint64_t>(draws[2 * n]),
                                            static_cast<uint64_t>(draws[2 * n + 1]));
            token[b] = static_cast<int32_t>(s.temperature <= 0 ? argmax(c) : draw(c, s, u));
        }
    });
}

}  // namespace plumb::cpu::PLUMB_ISA
