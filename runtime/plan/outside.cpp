#include "runtime/plan/outside.h"

#include "runtime/base/checked.h"

namespace plumb {

namespace {

constexpr int64_t kCodeBytes = 8 * kMiB;     // resident code and data of program and libraries
constexpr int64_t kHeapBytes = 4 * kMiB;     // program, plan, configuration, binding records
constexpr int64_t kStackBytes = 128 * kKiB;  // of the 8 MiB reserved per thread, what is touched

}  // namespace

std::vector<OutsideRow> outside_rows(const DeviceRecord& device) {
    return {
        {"process code and libraries", kCodeBytes, "estimated"},
        {"C and C++ heap before seal", kHeapBytes, "estimated"},
        {"OpenMP thread stacks", checked_mul(kStackBytes, device.threads, "thread stacks"),
         "estimated"},
    };
}

}  // namespace plumb
