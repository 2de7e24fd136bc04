#include "kernels/cuda/prepare.h"

#include "runtime/base/check.h"

namespace plumb::cuda {

namespace {

thread_local bool preparing = false;
thread_local const char* without_memory = nullptr;

}  // namespace

bool is_preparing() noexcept {
    return preparing;
}

void note_no_memory(const char* what) noexcept {
    if (without_memory == nullptr) without_memory = what;
}

Preparing::Preparing() noexcept {
    CHECK(!preparing);
    preparing = true;
    without_memory = nullptr;
}

const char* Preparing::lacking() const noexcept {
    return without_memory;
}

Preparing::~Preparing() {
    preparing = false;
}

}  // namespace plumb::cuda
