// Saves while training goes on: a thread that reads the live arenas through the planned staging,
// while the next step's forward and backward run. Weights, moments and state change only in
// `update`, which asks here first (wait_for) and so never changes what has not been written yet.
// The thread is made before seal() with a stack of planned size, which is all the memory it has of
// its own; it enters no OpenMP region and allocates nothing, and seal() judges it as it judges
// every thread of ours. Retention runs on it too.
// Use, all from one thread: start, wait_for before each update; finish when finished() says so, or
// to wait for the end.
// Path: hot.
#pragma once

#include <pthread.h>

#include "runtime/engine/state_io.h"

namespace plumb {

struct SaveOutcome {
    RunRecord record;
    Status status;
    SaveReport report;
    Status pruned;  // of removing old checkpoints after a good save
};

class BackgroundSave {
  public:
    // `state` outlives this object. Throws Error (does_not_fit) when the system gives no thread.
    explicit BackgroundSave(StateIo& state);
    // Waits for a save in progress.
    ~BackgroundSave();
    BackgroundSave(const BackgroundSave&) = delete;
    BackgroundSave& operator=(const BackgroundSave&) = delete;

    // Begins to save the state as it is now, as `record`. The outcome of the save before must have
    // been fetched by finish().
    void start(const RunRecord& record) noexcept;

    // Between start and finish.
    bool started() const noexcept { return phase_.load(std::memory_order_relaxed) != Phase::idle; }
    // finish() would not wait.
    bool finished() const noexcept { return phase_.load(std::memory_order_acquire) == Phase::done; }
    // Waits for the end of what start() began. Valid until the next start.
    const SaveOutcome& finish() noexcept;

    // For a save that is due while the one before may still be running: waits for that one's end.
    // The next save's report says for how long, and counts it among those that had to wait.
    void wait_until_finished() noexcept;

    // Returns when an update section of `unit` may run.
    void wait_for(UnitId unit) noexcept { stall_s_ += progress_.wait_for(unit); }

    // So far: updates that a save held up, and saves that the save before held up; those that wait
    // now are counted.
    int64_t stall_count() const noexcept { return progress_.stalls(); }
    int64_t waited_count() const noexcept { return waited_.load(std::memory_order_relaxed); }

  private:
    enum class Phase : int32_t { starting, idle, running, done, leaving };
    static void* run_thread(void* self) noexcept;
    void run() noexcept;
    Phase wait_while(Phase phase) noexcept;
    void set(Phase phase) noexcept;

    StateIo& state_;
    SaveProgress progress_;
    std::atomic<Phase> phase_{Phase::starting};
    SaveOutcome outcome_;  // the saving thread's while running
    double stall_s_ = 0;   // of this save
    double waited_s_ = 0;  // of the save to come
    std::atomic<int64_t> waited_{0};
    size_t mapped_bytes_;
    char* stack_ = nullptr;  // with a page below it that nobody may touch
    pthread_t thread_ = {};
};

}  // namespace plumb
