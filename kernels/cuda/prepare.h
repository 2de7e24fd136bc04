// What kernels make at their first launch (descriptors of products, grants of shared memory) is
// made when ops are bound: the executor calls each kernel once while a Preparing lives, and then
// nothing is launched. After that no kernel creates or asks anything.
// Path: hot.
#pragma once

namespace plumb::cuda {

bool is_preparing() noexcept;

// Of the calling thread.
class Preparing {
  public:
    Preparing() noexcept;
    ~Preparing();
    Preparing(const Preparing&) = delete;
    Preparing& operator=(const Preparing&) = delete;
};

}  // namespace plumb::cuda
