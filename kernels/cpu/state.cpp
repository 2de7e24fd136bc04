#include "kernels/cpu/kernel_list.h"
#include "kernels/cpu/vec.h"
#include "runtime/base/digest.h"
#include "runtime/base/random.h"

namespace plumb::cpu::PLUMB_ISA {

void init(const KernelArgs& args) noexcept {
    using O = InitOperands;
    const StateAttrs& a = args.attrs->state;
    const int64_t count = elements_of(args.shape[O::w]);
    float* w = floats(args, O::w);
    run_team(args.threads, [&](int64_t rank, int64_t team) {
        const Range range = split(count, kLanesMax, team, rank);
        for (int64_t i = range.begin; i < range.end; ++i) {
            const double value =
                a.std == 0.0 ? a.value
                             : a.std * random_normal(a.key, static_cast<uint64_t>(a.first + i));
            w[i] = static_cast<float>(value);
        }
    });
}

void zero(const KernelArgs& args) noexcept {
    using O = ZeroOperands;
    const int64_t count = elements_of(args.shape[O::t]);
    float* t = floats(args, O::t);
    run_team(args.threads, [&](int64_t rank, int64_t team) {
        const Range range = split(count, 1024, team, rank);
        __builtin_memset(t + range.begin, 0,
                         static_cast<size_t>(range.end - range.begin) * sizeof(float));
    });
}

void digest(const KernelArgs& args) noexcept {
    using O = DigestOperands;
    const StateAttrs& a = args.attrs->state;
    const int64_t count = elements_of(args.shape[O::t]);
    const uint32_t* bits = static_cast<const uint32_t*>(args.data[O::t]);
    uint64_t* out = static_cast<uint64_t*>(args.data[O::digest]);
    if (a.begin != 0) out[0] = out[1] = 0;
    Hash128 total;
    total.low = out[0];
    total.high = out[1];
    run_team(args.threads, [&](int64_t rank, int64_t team) {
        const Range range = split(count, 1024, team, rank);
        const Hash128 part = digest_elements(a.key, a.first + range.begin, bits + range.begin,
                                             range.end - range.begin);
        // A sum of integers: the order of the threads does not matter.
#pragma omp critical(plumb_digest)
        total = digest_add(total, part);
    });
    out[0] = total.low;
    out[1] = total.high;
}

}  // namespace plumb::cpu::PLUMB_ISA
