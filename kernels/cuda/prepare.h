// What kernels make at their first launch (their code on the GPU, descriptors of products, grants
// of shared memory) can be made before: whoever binds ops calls each kernel once while a Preparing
// lives, in which nothing is launched. After that no kernel of ours creates or asks anything.
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
