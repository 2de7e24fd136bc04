// What kernels make at their first launch (their code on the GPU, descriptors of products, grants
// of shared memory) can be made before: whoever binds ops calls each kernel once while a Preparing
// lives, in which nothing is launched. After that no kernel of ours creates or asks anything. What
// finds no memory of the GPU then is noted for whoever prepares, because kernels throw nothing.
// Path: hot.
#pragma once

namespace plumb::cuda {

bool is_preparing() noexcept;

// What may find no memory, in words.
inline constexpr const char* kKernelCode = "the code of a kernel";
inline constexpr const char* kProductCode = "what cuBLASLt keeps for a matrix product";
inline constexpr const char* kGraphNodes = "a graph of what is run";

// Says so of one of these, to the calling thread's Preparing; the first counts.
void note_no_memory(const char* what) noexcept;

// Of the calling thread.
class Preparing {
  public:
    Preparing() noexcept;
    ~Preparing();
    Preparing(const Preparing&) = delete;
    Preparing& operator=(const Preparing&) = delete;

    // What found no memory since it began; nullptr: nothing.
    const char* lacking() const noexcept;
};

}  // namespace plumb::cuda
