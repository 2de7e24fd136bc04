// A management library that says what a test has told it: linked into the test program under the
// real one's name, so that it is what dlopen finds. The processes of the compute list are given,
// the graphics list repeats the first. Each question can be refused with a status.
// Path: cold.
#pragma once

#include <vector>

namespace plumb::testing {

struct FakeNvmlProcess {
    unsigned pid;
    unsigned long long used_bytes;
    unsigned gpu_instance = ~0U;
    unsigned compute_instance = ~0U;
};

struct FakeNvml {
    std::vector<FakeNvmlProcess> processes;
    int init_status = 0;
    int device_status = 0;
    int process_status = 0;
    int opened = 0;  // times that it was started and not shut down
};
FakeNvml& fake_nvml();

}  // namespace plumb::testing
