#include "kernels/cpu/kernel_list.h"
#include "kernels/cpu/vec.h"

namespace plumb::cpu::PLUMB_ISA {

void embed(const KernelArgs& args) noexcept {
    using O = EmbedOperands;
    const int64_t rows = rows_of(args.shape[O::x]), size = last_of(args.shape[O::x]);
    const int64_t tokens_max = args.shape[O::wte].dim[0];
    ASSERT(last_of(args.shape[O::wte]) == size && elements_of(args.shape[O::tokens]) == rows);
    const float* wte_VD = floats(args, O::wte);
    const float* wpe_SD = floats(args, O::wpe);
    const int64_t positions_max = wpe_SD != nullptr ? args.shape[O::wpe].dim[0] : 0;
    run_team(args.threads, [&](int64_t rank, int64_t team) {
        const Range range = split(rows, 1, team, rank);
        for (int64_t row = range.begin; row < range.end; ++row) {
            const int64_t token = ints(args, O::tokens)[row];
            CHECK_NOTE(token >= 0 && token < tokens_max, "token id outside the vocabulary");
            float* x = floats(args, O::x) + row * size;
            const float* e = wte_VD + token * size;
            if (wpe_SD == nullptr) {
                __builtin_memcpy(x, e, static_cast<size_t>(size) * sizeof(float));
                continue;
            }
            const int64_t position = ints(args, O::positions)[row];
            CHECK_NOTE(position < positions_max, "position outside the context");
            // Padding of a prefill has position -1: its row is never read, so any will do.
            const float* p = wpe_SD + greater(position, 0) * size;
            for (int64_t i = 0; i < size; ++i) x[i] = e[i] + p[i];
        }
    });
}

// Tokens repeat, so rows cannot be split between threads: each thread adds its columns of every
// row, in the order of rows.
void embed_backward(const KernelArgs& args) noexcept {
    using O = EmbedBackwardOperands;
    const int64_t rows = rows_of(args.shape[O::dx]), size = last_of(args.shape[O::dx]);
    float* dwte_VD = floats(args, O::dwte);
    float* dwpe_SD = floats(args, O::dwpe);
    run_team(args.threads, [&](int64_t rank, int64_t team) {
        const Range range = split(size, kLanesMax, team, rank);
        for (int64_t row = 0; row < rows; ++row) {
            const float* dx = floats(args, O::dx) + row * size;
            if (dwte_VD != nullptr) {
                const int64_t token = ints(args, O::tokens)[row];
                CHECK_NOTE(token >= 0 && token < args.shape[O::dwte].dim[0],
                           "token id outside the vocabulary");
                float* d = dwte_VD + token * size;
                for (int64_t i = range.begin; i < range.end; ++i) d[i] += dx[i];
            }
            if (dwpe_SD != nullptr) {
                const int64_t position = ints(args, O::positions)[row];
                CHECK_NOTE(position >= 0 && position < args.shape[O::dwpe].dim[0],
                           "position outside the context");
                float* d = dwpe_SD + position * size;
                for (int64_t i = range.begin; i < range.end; ++i) d[i] += dx[i];
            }
        }
    });
}

}  // namespace plumb::cpu::PLUMB_ISA
