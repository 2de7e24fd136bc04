#include "runtime/engine/background_save.h"

#include <fmt/format.h>
#include <sys/mman.h>

#include <cerrno>
#include <cstring>

#include "runtime/base/check.h"
#include "runtime/base/error.h"
#include "runtime/exec/seal.h"
#include "runtime/plan/outside.h"

namespace plumb {

namespace {

constexpr size_t kGuardBytes = 4096;

// Populated like the arenas, so that no save fails for want of a page; a guard page below.
char* map_stack(size_t mapped_bytes) {
    void* mapped = ::mmap(nullptr, mapped_bytes, PROT_READ | PROT_WRITE,
                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK | MAP_POPULATE, -1, 0);
    if (mapped != MAP_FAILED && ::mprotect(mapped, kGuardBytes, PROT_NONE) == 0)
        return static_cast<char*>(mapped);
    const int code = errno;
    if (mapped != MAP_FAILED) ::munmap(mapped, mapped_bytes);
    throw Error(ExitCode::does_not_fit,
                fmt::format("cannot map {} bytes for the saving thread's stack: {}", mapped_bytes,
                            std::strerror(code)));
}

}  // namespace

BackgroundSave::BackgroundSave(StateIo& state)
    : state_(state),
      mapped_bytes_(kGuardBytes +
                    static_cast<size_t>(saving_stack_bytes(state.session().device().isa))),
      stack_(map_stack(mapped_bytes_)) {
    pthread_attr_t attributes;
    CHECK(pthread_attr_init(&attributes) == 0);
    CHECK(pthread_attr_setstack(&attributes, stack_ + kGuardBytes, mapped_bytes_ - kGuardBytes) ==
          0);
    const int code = pthread_create(&thread_, &attributes, run_thread, this);
    pthread_attr_destroy(&attributes);
    if (code != 0) {
        ::munmap(stack_, mapped_bytes_);
        throw Error(ExitCode::does_not_fit,
                    fmt::format("cannot start the saving thread: {}", std::strerror(code)));
    }
    wait_while(Phase::starting);
}

BackgroundSave::~BackgroundSave() {
    wait_while(Phase::running);
    set(Phase::leaving);
    pthread_join(thread_, nullptr);
    ::munmap(stack_, mapped_bytes_);
}

BackgroundSave::Phase BackgroundSave::wait_while(Phase phase) noexcept {
    Phase now = phase_.load(std::memory_order_acquire);
    while (now == phase) {
        phase_.wait(now, std::memory_order_acquire);
        now = phase_.load(std::memory_order_acquire);
    }
    return now;
}

void BackgroundSave::set(Phase phase) noexcept {
    phase_.store(phase, std::memory_order_release);
    phase_.notify_one();
}

void* BackgroundSave::run_thread(void* self) noexcept {
    static_cast<BackgroundSave*>(self)->run();
    return nullptr;
}

void BackgroundSave::run() noexcept {
    mark_thread_ours();
    set(Phase::idle);
    while (true) {
        // Waits through `idle` and `done`: both are for the other thread to end.
        const Phase now = phase_.load(std::memory_order_acquire);
        if (now == Phase::leaving) return;
        if (now != Phase::running) {
            phase_.wait(now, std::memory_order_acquire);
            continue;
        }
        outcome_.status = state_.save(outcome_.record, &outcome_.report, &progress_);
        outcome_.pruned = {};
        int removed = 0;
        if (outcome_.status.ok()) outcome_.pruned = state_.prune(&removed);
        set(Phase::done);
    }
}

void BackgroundSave::start(const RunRecord& record) noexcept {
    CHECK_NOTE(phase_.load(std::memory_order_relaxed) == Phase::idle, "the save before");
    outcome_.record = record;
    outcome_.report = {};
    outcome_.report.waited_s = waited_s_;
    outcome_.report.waited_count = waited_count();
    waited_s_ = stall_s_ = 0;
    progress_.begin(state_.first_unit());
    set(Phase::running);
}

const SaveOutcome& BackgroundSave::finish() noexcept {
    CHECK_NOTE(started(), "nothing to wait for");
    wait_while(Phase::running);
    outcome_.report.stall_s = stall_s_;
    phase_.store(Phase::idle, std::memory_order_relaxed);
    return outcome_;
}

void BackgroundSave::wait_until_finished() noexcept {
    if (phase_.load(std::memory_order_acquire) != Phase::running) return;
    const auto start = std::chrono::steady_clock::now();
    waited_.fetch_add(1, std::memory_order_relaxed);
    wait_while(Phase::running);
    waited_s_ = seconds_since(start);
}

}  // namespace plumb
