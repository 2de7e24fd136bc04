// All ranks of a run as one of them sees them: who they are, what they tell each other before the
// run, memory that those of one host read of each other, and what stops them all when one fails.
// A world is made by start.h. Its cold calls are collective: every rank makes the same ones in the
// same order. A rank that waits for another waits at most timeout_s after the other's last sign of
// life: then, or when the other's process has ended, the first to see it says who is missing and
// where, and all stop.
// Path: cold.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "runtime/base/error.h"
#include "runtime/comm/group.h"

namespace plumb {

// Memory of this rank that the ranks of its host read too; zeros at first. Goes with the world.
struct Window {
    char* data = nullptr;
    int64_t size_bytes = 0;
};

struct WorldOptions {
    double timeout_s = 30;
    // Wait asleep almost at once: ranks and their threads are more than the processors.
    bool crowded = false;
};

class World {
  public:
    virtual ~World() = default;
    World(const World&) = delete;
    World& operator=(const World&) = delete;

    int32_t rank() const { return rank_; }
    int32_t size() const { return size_; }

    // Every rank's bytes, as many of each, in order of ranks.
    virtual std::vector<char> all_gather(const void* mine, int64_t size_bytes) = 0;
    std::vector<std::string> all_gather(const std::string& mine);
    void barrier() { all_gather("", 0); }

    // Throws Error (does_not_fit) when a rank of this host cannot map or populate its own.
    virtual Window make_window(int64_t size_bytes) = 0;

    // The ranks of an axis that this one is on, in the order of the axis; all ranks of the world
    // make their groups of an axis in one call. What hot calls exchange lies in windows.
    virtual std::unique_ptr<Group> make_group(GroupAxis axis,
                                              const std::vector<int32_t>& ranks) = 0;

    // Groups that are made later record what they do; outlives them.
    void set_recorder(FlightRecorder* recorder) { recorder_ = recorder; }

    // A sign of life of the thread that exchanges, which may take its time between two exchanges.
    // Between hosts nobody sees it. Hot.
    virtual void beat() noexcept {}

    // This rank ends, and why; the others stop with the same exit code. The first that fails of
    // all is the one that is heard.
    [[noreturn]] virtual void fail(ExitCode code, const char* message) noexcept = 0;

  protected:
    World(int32_t rank, int32_t size) : rank_(rank), size_(size) {}
    FlightRecorder* recorder() const { return recorder_; }

  private:
    FlightRecorder* recorder_ = nullptr;
    int32_t rank_;
    int32_t size_;
};

}  // namespace plumb
