#include "runtime/plan/outside.h"

#include <algorithm>

#include "runtime/base/checked.h"

namespace plumb {

namespace {

// Estimates: constants that fit one machine (Debian 12, g++ 12.2), where the last lines of
// plumb-train runs gave what was held beyond the arenas, 0.86 MiB at 480 ops, 1.86 MiB at 1,360 and
// 3.35 MiB at 2,535; file pages 5.7 MiB. Nothing is measured where the plan is made.
constexpr int64_t kCodeBytes = 6 * kMiB;     // resident pages of the program and its libraries
constexpr int64_t kHeapBytes = 640 * kKiB;   // configuration, libraries, logs
constexpr int64_t kHeapOpBytes = 1280;       // an op with its tensors, placements and bound record
constexpr int64_t kStackBytes = 128 * kKiB;  // of the 8 MiB reserved per thread, what is touched

// What CUDA and cuBLASLt hold of a GPU before the first allocation, and of the host: round numbers
// until a machine with a GPU has been measured.
constexpr int64_t kCudaContextBytes = 640 * kMiB;
constexpr int64_t kCudaHostBytes = 512 * kMiB;

}  // namespace

std::vector<OutsideRow> outside_rows(const Program& program, const DeviceRecord& device) {
    const auto op_count = static_cast<int64_t>(program.ops.size());
    std::vector<OutsideRow> rows = {
        {"process code and libraries", kCodeBytes, "estimated"},
        {"C and C++ heap before seal",
         checked_add(kHeapBytes, checked_mul(kHeapOpBytes, op_count, "heap"), "heap"), "estimated"},
        {"OpenMP thread stacks", checked_mul(kStackBytes, device.threads, "thread stacks"),
         "estimated"},
    };
    if (is_cuda(device.isa))
        rows.insert(rows.end(), {{"CUDA context and libraries", kCudaContextBytes, "not measured",
                                  MemorySpace::gpu},
                                 {"CUDA's part on the host", kCudaHostBytes, "not measured"}});
    const bool saves_beside = std::any_of(program.phases.begin(), program.phases.end(),
                                          [](const Phase& phase) { return !phase.beside.empty(); });
    if (saves_beside)
        rows.push_back({"saving thread's stack", saving_stack_bytes(device.isa), "reserved"});
    return rows;
}

}  // namespace plumb
