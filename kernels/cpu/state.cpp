#include "kernels/cpu/kernel_list.h"
#include "kernels/cpu/master.h"
#include "kernels/cpu/vec.h"
#include "runtime/base/digest.h"
#include "runtime/base/random.h"

namespace plumb::cpu::PLUMB_ISA {

template <typename T>
void init(const KernelArgs& args) noexcept {
    using O = InitOperands;
    const StateAttrs& a = args.attrs->state;
    const int64_t count = elements_of(args.shape[O::w]);
    run_team(args.threads, [&](int64_t rank, int64_t team) {
        const Range range = split(count, kLanesMax, team, rank);
        each_master_block<false>(
            values<T>(args, O::w), args.data[O::master], range,
            [&](float* master, int64_t first, int64_t lanes) {
                for (int64_t i = 0; i < lanes; ++i) {
                    const auto element = static_cast<uint64_t>(a.first + first + i);
                    master[i] = static_cast<float>(
                        a.std == 0.0 ? a.value : a.std * random_normal(a.key, element));
                }
            });
    });
}

PLUMB_VALUE_KERNEL(init)

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

namespace {

Hash128 digest_of(const KernelArgs& args, const float*, Range range) {
    using O = DigestOperands;
    const StateAttrs& a = args.attrs->state;
    const uint32_t* bits = static_cast<const uint32_t*>(args.data[O::t]);
    return digest_elements(a.key, a.first + range.begin, bits + range.begin,
                           range.end - range.begin);
}
Hash128 digest_of(const KernelArgs& args, const Bf16*, Range range) {
    using O = DigestOperands;
    const StateAttrs& a = args.attrs->state;
    const uint16_t* high = values<uint16_t>(args, O::t);
    const uint16_t* low = values<uint16_t>(args, O::low);
    return digest_masters(a.key, a.first + range.begin, high + range.begin, low + range.begin,
                          range.end - range.begin);
}

}  // namespace

template <typename T>
void digest(const KernelArgs& args) noexcept {
    using O = DigestOperands;
    const StateAttrs& a = args.attrs->state;
    const int64_t count = elements_of(args.shape[O::t]);
    uint64_t* out = static_cast<uint64_t*>(args.data[O::digest]);
    if (a.begin != 0) out[0] = out[1] = 0;
    Hash128 total;
    total.low = out[0];
    total.high = out[1];
    run_team(args.threads, [&](int64_t rank, int64_t team) {
        const Range range = split(count, 1024, team, rank);
        const Hash128 part = digest_of(args, values<T>(args, O::t), range);
        // A sum of integers: the order of the threads does not matter.
#pragma omp critical(plumb_digest)
        total = digest_add(total, part);
    });
    out[0] = total.low;
    out[1] = total.high;
}

template void digest<float>(const KernelArgs&) noexcept;
template void digest<Bf16>(const KernelArgs&) noexcept;

}  // namespace plumb::cpu::PLUMB_ISA
