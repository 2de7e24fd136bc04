#include "kernels/cuda/prepare.h"

#include "runtime/base/check.h"

namespace plumb::cuda {

namespace {

thread_local bool preparing = false;

}  // namespace

bool is_preparing() noexcept {
    return preparing;
}

Preparing::Preparing() noexcept {
    CHECK(!preparing);
    preparing = true;
}

Preparing::~Preparing() {
    preparing = false;
}

}  // namespace plumb::cuda
