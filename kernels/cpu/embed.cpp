#include "kernels/cpu/kernel_list.h"
#include "kernels/cpu/vec.h"

namespace plumb::cpu::PLUMB_ISA {

template <typename T>
void embed(const KernelArgs& args) noexcept {
    using O = EmbedOperands;
    const int64_t rows = rows_of(args.shape[O::x]), size = last_of(args.shape[O::x]);
    const int64_t tokens_max = args.shape[O::wte].dim[0];
    ASSERT(last_of(args.shape[O::wte]) == size && elements_of(args.shape[O::tokens]) == rows);
    const T* wte_VD = values<T>(args, O::wte);
    const T* wpe_SD = values<T>(args, O::wpe);
    const int64_t positions_max = wpe_SD != nullptr ? args.shape[O::wpe].dim[0] : 0;
    run_team(args.threads, [&](int64_t rank, int64_t team) {
        const Range range = split(rows, 1, team, rank);
        for (int64_t row = range.begin; row < range.end; ++row) {
            const int64_t token = ints(args, O::tokens)[row];
            CHECK_NOTE(token >= 0 && token < tokens_max, "token id outside the vocabulary");
            T* x = values<T>(args, O::x) + row * size;
            const T* e = wte_VD + token * size;
            if (wpe_SD == nullptr) {
                __builtin_memcpy(x, e, static_cast<size_t>(size) * sizeof(T));
                continue;
            }
            const int64_t position = ints(args, O::positions)[row];
            CHECK_NOTE(position < positions_max, "position outside the context");
            // Padding of a prefill has position -1: its row is never read, so any will do.
            const T* p = wpe_SD + greater(position, 0) * size;
            for (int64_t i = 0; i < size; i += kLanes) {
                const int64_t lanes = size - i;
                store_part(x + i, load_part(e + i, lanes) + load_part(p + i, lanes), lanes);
            }
        }
    });
}

namespace {

template <typename T>
PLUMB_INLINE void add_columns(float* sum, const T* x, Range range) {
    for (int64_t i = range.begin; i < range.end; i += kLanes) {
        const int64_t lanes = range.end - i;
        store_part(sum + i, load_part(sum + i, lanes) + load_part(x + i, lanes), lanes);
    }
}

}  // namespace

// Tokens repeat, so rows cannot be split between threads: each thread adds its columns of every
// row, in the order of rows.
template <typename T>
void embed_backward(const KernelArgs& args) noexcept {
    using O = EmbedBackwardOperands;
    const int64_t rows = rows_of(args.shape[O::dx]), size = last_of(args.shape[O::dx]);
    float* dwte_VD = floats(args, O::dwte);
    float* dwpe_SD = floats(args, O::dwpe);
    run_team(args.threads, [&](int64_t rank, int64_t team) {
        const Range range = split(size, kLanesMax, team, rank);
        for (int64_t row = 0; row < rows; ++row) {
            const T* dx = values<T>(args, O::dx) + row * size;
            if (dwte_VD != nullptr) {
                const int64_t token = ints(args, O::tokens)[row];
                CHECK_NOTE(token >= 0 && token < args.shape[O::dwte].dim[0],
                           "token id outside the vocabulary");
                add_columns(dwte_VD + token * size, dx, range);
            }
            if (dwpe_SD != nullptr) {
                const int64_t position = ints(args, O::positions)[row];
                CHECK_NOTE(position >= 0 && position < args.shape[O::dwpe].dim[0],
                           "position outside the context");
                add_columns(dwpe_SD + position * size, dx, range);
            }
        }
    });
}

PLUMB_VALUE_KERNEL(embed)
PLUMB_VALUE_KERNEL(embed_backward)

}  // namespace plumb::cpu::PLUMB_ISA
