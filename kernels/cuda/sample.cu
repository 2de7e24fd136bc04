#include "kernels/cuda/kernel_list.h"
#include "kernels/cuda/math.h"
#include "kernels/cuda/scratch.h"
#include "kernels/cuda/values.h"
#include "runtime/base/random.h"

namespace plumb::cuda {

namespace {

// A block for each row. Sums of weights are added in an order that follows from the vocabulary's
// size alone: bins of each thread, then of groups of threads, then of all.
constexpr int kThreadsMax = 1024;
constexpr int kDigitBits = 4;
constexpr int kDigits = 1 << kDigitBits;

// Threads of a block: 32 tokens for each of them fill a block with a vocabulary of 2^15.
constexpr int sample_threads(int64_t vocabulary) {
    const int64_t threads = align_up(ceil_div(vocabulary, 32), kWarp);
    return static_cast<int>(threads < kThreadsMax ? threads : kThreadsMax);
}

// Shared memory, all f64 so that any of them can be first: every thread's bins, the sums of groups
// of kDigits threads, the bins' sums; one number for each warp.
struct Shared {
    double* bins;    // [digit][thread]
    double* groups;  // [digit][thread / kDigits]
    double* sums;    // [digit]
    double* warps;
};
constexpr int64_t sample_shared_bytes(int threads) {
    return (kDigits * threads + threads + kDigits + kWarp) * 8;
}
static_assert(sample_shared_bytes(kThreadsMax) <= kBlockSharedMost);

// One sequence's choice, as on the CPU. Tokens stay in their order: what stays is found by radix
// selection over the bits of the logits.
struct Choice {
    const float* logits;
    const uint8_t* seen;
    int64_t size;
    float penalty;
    double* weight;  // exp((logit - max) / temperature); 0: filtered out
    Shared shared;
};

__device__ __forceinline__ int thread_count() {
    return static_cast<int>(blockDim.x);
}
__device__ __forceinline__ int self() {
    return static_cast<int>(threadIdx.x);
}

__device__ __forceinline__ float logit_of(const Choice& c, int64_t i) {
    const float x = c.logits[i];
    if (c.seen[i] == 0) return x;
    return x > 0 ? x / c.penalty : x * c.penalty;
}

// Integers in the order of the numbers.
__device__ __forceinline__ uint32_t key_of(const Choice& c, int64_t i) {
    const uint32_t bits = bits_of(logit_of(c, i) + 0.0F);  // -0 becomes 0, its equal
    return (bits >> 31) != 0 ? ~bits : bits | 0x80000000U;
}

// The first of the largest logits, in every thread. A NaN is less than any number, but the first
// token's is never exceeded, as in a loop over all of them.
__device__ int64_t argmax(const Choice& c) {
    // Of equal logits the lower index is the larger number.
    uint64_t best = 0;
    for (int64_t i = self(); i < c.size; i += thread_count()) {
        const float x = logit_of(c, i);
        const uint64_t key = x == x ? key_of(c, i) : i == 0 ? 0xFFFFFFFFU : 0U;
        const uint64_t found = key << 32 | (0xFFFFFFFFU - static_cast<uint32_t>(i));
        best = found > best ? found : best;
    }
    best = block_max(best, reinterpret_cast<uint64_t*>(c.shared.warps));
    return static_cast<int64_t>(0xFFFFFFFFU - static_cast<uint32_t>(best));
}

// What counts towards a filter's goal: one each (top-k), or the weights (top-p).
enum class Measure { count, weight };

template <Measure measure>
__device__ __forceinline__ double measured(double weight) {
    return measure == Measure::weight ? weight : weight > 0 ? 1.0 : 0.0;
}

// shared.sums[d] = measure of the tokens whose key begins with `prefix` and goes on with digit d.
template <Measure measure>
__device__ void sum_digits(const Choice& c, uint32_t prefix, uint32_t mask, int shift) {
    const int threads = thread_count(), groups = threads / kDigits;
    double* bins = c.shared.bins + self();
    for (int d = 0; d < kDigits; ++d) bins[d * threads] = 0;
#pragma unroll 4
    for (int64_t i = self(); i < c.size; i += threads) {
        const uint32_t key = key_of(c, i);
        const double value = measured<measure>(c.weight[i]);
        if ((key & mask) == prefix)
            bins[static_cast<int>(key >> shift & (kDigits - 1U)) * threads] += value;
    }
    __syncthreads();
    const int digit = self() / groups, group = self() % groups;
    double sum = 0;
    for (int n = 0; n < kDigits; ++n) sum += c.shared.bins[digit * threads + n * groups + group];
    c.shared.groups[self()] = sum;
    __syncthreads();
    if (self() < kDigits) {
        sum = 0;
        for (int g = 0; g < groups; ++g) sum += c.shared.groups[self() * groups + g];
        c.shared.sums[self()] = sum;
    }
    __syncthreads();
}

// The tokens of a warp, in order and a multiple of kWarp: body(i) is called by all lanes together,
// also where i is behind the last token.
struct Stretch {
    int64_t begin;
    int64_t end;
};
__device__ __forceinline__ Stretch stretch_of(const Choice& c, int warp) {
    const int64_t warps = thread_count() / kWarp;
    const int64_t tokens = (c.size + warps * kWarp - 1) / (warps * kWarp) * kWarp;
    return {warp * tokens, (warp + 1) * tokens};
}
template <typename Body>
__device__ __forceinline__ void for_each_of_warp(const Choice& c, const Body& body) {
    const Stretch stretch = stretch_of(c, self() / kWarp);
    for (int64_t i = stretch.begin + self() % kWarp; i < stretch.end; i += kWarp) body(i);
}

// Of equal keys the first ones stay until the measure reaches the goal, one at least; `above` is
// the measure of the larger ones, which all stay. Equal keys have equal weights, so the sum of
// those before is a multiple of one's own.
template <Measure measure>
__device__ void keep_from(const Choice& c, uint32_t last_key, double above, double goal) {
    auto* counts = reinterpret_cast<int32_t*>(c.shared.warps);
    const int lane = self() % kWarp, warp = self() / kWarp;
    int32_t count = 0;
    for_each_of_warp(c, [&](int64_t i) {
        if (i < c.size && c.weight[i] > 0 && key_of(c, i) == last_key) ++count;
    });
    count = warp_sum(count);
    if (lane == 0) counts[warp] = count;
    __syncthreads();
    int32_t before = 0;
    for (int w = 0; w < warp; ++w) before += counts[w];
    for_each_of_warp(c, [&](int64_t i) {
        const double weight = i < c.size ? c.weight[i] : 0.0;
        const uint32_t key = i < c.size ? key_of(c, i) : 0;
        const bool equal = weight > 0 && key == last_key;
        const unsigned ballot = __ballot_sync(kAllLanes, equal ? 1 : 0);
        const int32_t rank = before + __popc(ballot & ((1U << lane) - 1));
        const bool stays = rank == 0 || above + rank * measured<measure>(weight) < goal;
        if (i < c.size && key <= last_key && !(equal && stays)) c.weight[i] = 0;
        before += __popc(ballot);
    });
    __syncthreads();
}

// Keeps the fewest tokens of largest logits whose measure reaches the goal, of equal logits the
// first ones; the others' weights become 0.
template <Measure measure>
__device__ void keep_largest(const Choice& c, double goal) {
    uint32_t prefix = 0;  // of the last kept token's key
    uint32_t mask = 0;    // of the bits known of it
    double above = 0;     // measure of the keys over it
    for (int shift = 32 - kDigitBits; shift >= 0; shift -= kDigitBits) {
        sum_digits<measure>(c, prefix, mask, shift);
        const double* sum = c.shared.sums;
        // Rounding alone can keep all sums below the goal; then the lowest that counts is the last.
        int last = kDigits - 1, lowest = 0;
        while (lowest < kDigits - 1 && !(sum[lowest] > 0)) ++lowest;
        for (; last > lowest && (!(sum[last] > 0) || above + sum[last] < goal); --last)
            above += sum[last];
        prefix |= static_cast<uint32_t>(last) << shift;
        mask |= (kDigits - 1U) << shift;
    }
    keep_from<measure>(c, prefix, above, goal);
}

// The sum of the weights, in every thread; shared.warps has those of the warps' stretches until the
// block's next barrier but one.
__device__ double sum_of_weights(const Choice& c) {
    double sum = 0;
    for_each_of_warp(c, [&](int64_t i) { sum += i < c.size ? c.weight[i] : 0.0; });
    return block_sum(sum, c.shared.warps);
}

// The first of a warp's tokens at which the sum of weights, `sum` before them, exceeds the goal;
// the last that counts where rounding alone keeps it below. In every lane.
__device__ int64_t draw_of_warp(const Choice& c, double sum, double goal) {
    const Stretch stretch = stretch_of(c, self() / kWarp);
    const int lane = self() % kWarp;
    int64_t last = 0;
    for (int64_t first = stretch.begin; first < stretch.end; first += kWarp) {
        const double weight = first + lane < c.size ? c.weight[first + lane] : 0.0;
        double through = weight;
        for (int step = 1; step < kWarp; step *= 2) {
            const double before = __shfl_up_sync(kAllLanes, through, step);
            if (lane >= step) through += before;
        }
        through += sum;
        // Sums of neighbours are not rounded alike: what has no weight must not be drawn for it.
        const unsigned over = __ballot_sync(kAllLanes, weight > 0 && through > goal ? 1 : 0);
        if (over != 0) return first + __ffs(static_cast<int>(over)) - 1;
        const unsigned counting = __ballot_sync(kAllLanes, weight > 0 ? 1 : 0);
        for (int l = 0; l < kWarp; ++l)
            if ((counting >> l & 1U) != 0) last = first + l;
        sum = __shfl_sync(kAllLanes, through, kWarp - 1);
    }
    return last;
}

// Inverse of the cumulative distribution at u, in fp64 and in order of the tokens.
__device__ void draw(const Choice& c, const StepScalars& s, double u, int32_t* token) {
    const auto max = static_cast<double>(logit_of(c, argmax(c)));
    const double rate = 1.0 / s.temperature;
    for (int64_t i = self(); i < c.size; i += thread_count())
        c.weight[i] = exp((static_cast<double>(logit_of(c, i)) - max) * rate);
    __syncthreads();
    if (s.top_k > 0 && s.top_k < c.size)
        keep_largest<Measure::count>(c, static_cast<double>(s.top_k));
    if (s.top_p < 1.0) keep_largest<Measure::weight>(c, s.top_p * sum_of_weights(c));
    const double goal = u * sum_of_weights(c);
    // The warp whose stretch passes the goal, or else the last one that has weights.
    const int warps = thread_count() / kWarp;
    int chosen = 0;
    double before = 0, sum = 0;
    for (int w = 0; w < warps; ++w) {
        const double part = c.shared.warps[w];
        if (part > 0) {
            chosen = w;
            before = sum;
        }
        sum += part;
        if (sum > goal) break;
    }
    if (self() / kWarp != chosen) return;
    const int64_t drawn = draw_of_warp(c, before, goal);
    if (self() % kWarp == 0) *token = static_cast<int32_t>(drawn);
}

struct Sample {
    int32_t* token;
    const float* logits;
    const uint8_t* seen;
    const int64_t* draws;
    const int32_t* sequences;  // optional
    const StepScalars* scalars;
    char* weights;
    int64_t size;
};

__global__ void __launch_bounds__(kThreadsMax) sample_row(Sample a) {
    const int64_t b = blockIdx.x, n = a.sequences != nullptr ? a.sequences[b] : b;
    const StepScalars& s = *a.scalars;
    auto* shared = reinterpret_cast<double*>(block_shared());
    const int threads = thread_count();
    double* groups = shared + kDigits * threads;
    const Choice c{a.logits + b * a.size,
                   a.seen + n * a.size,
                   a.size,
                   static_cast<float>(s.repetition_penalty),
                   reinterpret_cast<double*>(a.weights + b * sample_row_bytes(a.size)),
                   {shared, groups, groups + threads, groups + threads + kDigits}};
    if (s.temperature <= 0) {
        const int64_t best = argmax(c);
        if (self() == 0) a.token[b] = static_cast<int32_t>(best);
        return;
    }
    const double u = random_uniform(static_cast<uint64_t>(a.draws[2 * n]),
                                    static_cast<uint64_t>(a.draws[2 * n + 1]));
    draw(c, s, u, a.token + b);
}

void sample(const KernelArgs& args) noexcept {
    using O = SampleOperands;
    const int64_t batch = args.shape[O::logits].dim[0], size = args.shape[O::logits].last();
    ASSERT(args.shape[O::token].elements() == batch);
    ASSERT(args.shape[O::seen].elements() == args.shape[O::draws].dim[0] * size);
    ASSERT(args.scratch_bytes >= batch * sample_row_bytes(size));
    const int threads = sample_threads(size);
    const Sample a{args.at<int32_t>(O::token),       args.at<float>(O::logits),
                   args.at<uint8_t>(O::seen),        args.at<int64_t>(O::draws),
                   args.at<int32_t>(O::sequences),   args.scalars,
                   static_cast<char*>(args.scratch), size};
    launch<sample_row>({batch, threads, args.stream, sample_shared_bytes(threads)}, a);
}

}  // namespace

void add_sample(KernelTable& table) noexcept {
    set_kernels(table, OpKind::sample, sample);
}

}  // namespace plumb::cuda
