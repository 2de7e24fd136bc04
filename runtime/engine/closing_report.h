// The lines with which a program that ran a model ends: what the process held at most beside what
// the plan said, and what was allocated after seal. The peak is the largest of samples taken where
// memory may have grown (after load, after each step), so that pages of mapped files, which can be
// dropped at any time, are kept apart from those that cannot. Of a GPU: what was held of its memory
// before the arenas were taken and at the end, by all processes, and what was taken after seal.
// Path: hot.
#pragma once

#include "runtime/engine/session.h"
#include "runtime/exec/seal.h"

namespace plumb {

class PeakMemory {
  public:
    // Allocates nothing.
    void sample() noexcept;
    int64_t resident_bytes() const { return resident_bytes_; }  // anonymous and shared
    int64_t file_bytes() const { return file_bytes_; }

  private:
    int64_t resident_bytes_ = 0;
    int64_t file_bytes_ = 0;
};

// Two lines, the second only where seal is enforced, and one more for a GPU. `counts` were taken
// while sealed or later.
void print_closing_report(int fd, const Session& session, const PeakMemory& peak,
                          const AllocationCounts& counts);
// The first two, of a plan; `gpu_line` between them.
void print_closing_report(int fd, const Plan& plan, const std::string& gpu_line,
                          const PeakMemory& peak, const AllocationCounts& counts);

}  // namespace plumb
