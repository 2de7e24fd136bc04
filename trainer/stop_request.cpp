#include "trainer/stop_request.h"

#include <unistd.h>

#include <atomic>

#include "runtime/base/check.h"

namespace plumb {

namespace {

constexpr int kSignals[] = {SIGUSR1, SIGTERM, SIGHUP, SIGINT};
constexpr int kSignalCount = 4;

std::atomic<int> g_signal{0};
static_assert(std::atomic<int>::is_always_lock_free, "set in a signal handler");

void note_signal(int signal) {
    g_signal = signal;
}

}  // namespace

StopRequest::StopRequest(const std::string& folder)
    : file_(folder + "/stop"), file_reason_("the file " + file_) {
    g_signal = 0;
    for (int i = 0; i < kSignalCount; ++i) {
        struct sigaction action {};
        action.sa_handler = note_signal;
        sigemptyset(&action.sa_mask);
        // Restart: a save in progress is not disturbed. Reset: the second SIGINT is the default.
        action.sa_flags = SA_RESTART;
        if (kSignals[i] == SIGINT) action.sa_flags |= static_cast<int>(SA_RESETHAND);
        CHECK(sigaction(kSignals[i], nullptr, &old_[i]) == 0);
        if (kSignals[i] == SIGHUP && old_[i].sa_handler == SIG_IGN) continue;
        CHECK(sigaction(kSignals[i], &action, nullptr) == 0);
    }
}

StopRequest::~StopRequest() {
    for (int i = 0; i < kSignalCount; ++i) sigaction(kSignals[i], &old_[i], nullptr);
}

const char* StopRequest::asked() const noexcept {
    switch (g_signal.load()) {
        case SIGUSR1:
            return "SIGUSR1";
        case SIGTERM:
            return "SIGTERM";
        case SIGHUP:
            return "SIGHUP";
        case SIGINT:
            return "SIGINT";
        default:
            return ::access(file_.c_str(), F_OK) == 0 ? file_reason_.c_str() : nullptr;
    }
}

void StopRequest::honoured() noexcept {
    ::unlink(file_.c_str());
}

}  // namespace plumb
