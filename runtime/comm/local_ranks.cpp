#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstring>
#include <new>
#include <thread>

#include "runtime/base/log.h"
#include "runtime/comm/shm_world.h"
#include "runtime/comm/start.h"

namespace plumb {

namespace {

using Clock = std::chrono::steady_clock;

constexpr int32_t kLocalRanksMax = 1024;
constexpr int kPassedOn[] = {SIGINT, SIGTERM, SIGUSR1};
constexpr double kGraceSeconds = 3;

// What the signal handler reads: 0 where a rank has ended.
volatile pid_t g_rank_pids[kLocalRanksMax];
volatile int32_t g_rank_count = 0;

void pass_on(int signal) {
    const int code = errno;
    for (int32_t r = 0; r < g_rank_count; ++r)
        if (g_rank_pids[r] > 0) ::kill(g_rank_pids[r], signal);
    errno = code;
}

class Board {
  public:
    explicit Board(int32_t rank_count) : size_bytes_(host_board_bytes(rank_count)) {
        fd_ = make_shared("plumb-board", size_bytes_);
        memory_ = fd_ < 0 ? nullptr : map_shared(fd_, size_bytes_);
        if (memory_ == nullptr)
            throw Error(ExitCode::does_not_fit,
                        fmt::format("cannot map {} bytes that {} ranks share: {}", size_bytes_,
                                    rank_count, std::strerror(errno)));
        board()->rank_count = rank_count;
        board()->failed = 0;
    }
    ~Board() {
        if (memory_ != nullptr) ::munmap(memory_, static_cast<size_t>(size_bytes_));
        if (fd_ >= 0) ::close(fd_);
    }
    Board(const Board&) = delete;
    Board& operator=(const Board&) = delete;

    // Zeros are a board on which nothing has happened.
    HostBoard* board() const { return reinterpret_cast<HostBoard*>(memory_); }

  private:
    int64_t size_bytes_;
    int fd_ = -1;
    char* memory_ = nullptr;
};

[[noreturn]] void be_rank(int32_t rank, int32_t count, HostBoard* board,
                          const WorldOptions& options, pid_t parent,
                          const std::function<int(World&)>& body) {
    ::prctl(PR_SET_PDEATHSIG, SIGTERM);
    if (::getppid() != parent) ::_exit(static_cast<int>(ExitCode::peer_lost));
    int code = 1;
    {
        ShmWorld world(rank, count, board, options);
        code = body(world);
    }
    ::fflush(nullptr);
    ::_exit(code);
}

// How a rank ended, as an exit code.
int code_of(int32_t rank, int status) {
    if (WIFEXITED(status)) return WEXITSTATUS(status);
    const int signal = WTERMSIG(status);
    print_line(STDERR_FILENO, "error: rank {} was ended by signal {} ({})", rank, signal,
               strsignal(signal));
    return static_cast<int>(ExitCode::peer_lost);
}

// Until all have ended; see run_local_ranks.
int supervise(int32_t count, const WorldOptions& options) {
    int first_failure = 0;
    int32_t running = count;
    Clock::time_point end = Clock::time_point::max();
    bool killed = false;
    while (running > 0) {
        int status = 0;
        const pid_t pid = ::waitpid(-1, &status, first_failure == 0 ? 0 : WNOHANG);
        if (pid < 0 && errno == ECHILD) break;
        if (pid <= 0) {
            if (first_failure != 0 && !killed && Clock::now() > end) {
                pass_on(SIGKILL);
                killed = true;
            }
            if (pid == 0) std::this_thread::sleep_for(std::chrono::milliseconds(20));
            continue;
        }
        for (int32_t r = 0; r < count; ++r) {
            if (g_rank_pids[r] != pid) continue;
            g_rank_pids[r] = 0;
            --running;
            const int code = killed ? first_failure : code_of(r, status);
            if (code == 0 || first_failure != 0) continue;
            first_failure = code;
            end = Clock::now() +
                  std::chrono::duration_cast<Clock::duration>(
                      std::chrono::duration<double>(options.timeout_s + kGraceSeconds));
        }
    }
    return first_failure;
}

}  // namespace

int run_local_ranks(int32_t count, const WorldOptions& options,
                    const std::function<int(World&)>& body) {
    if (count < 1 || count > kLocalRanksMax)
        throw Error(ExitCode::bad_input,
                    fmt::format("{} local ranks, expected 1 to {}", count, kLocalRanksMax));
    const Board board(count);
    const pid_t parent = ::getpid();
    ::fflush(nullptr);
    g_rank_count = 0;
    struct sigaction old[std::size(kPassedOn)];
    for (size_t s = 0; s < std::size(kPassedOn); ++s) {
        struct sigaction action = {};
        action.sa_handler = pass_on;
        ::sigaction(kPassedOn[s], &action, &old[s]);
    }
    for (int32_t r = 0; r < count; ++r) {
        const pid_t pid = ::fork();
        if (pid == 0) {
            for (size_t s = 0; s < std::size(kPassedOn); ++s)
                ::sigaction(kPassedOn[s], &old[s], nullptr);
            be_rank(r, count, board.board(), options, parent, body);
        }
        g_rank_pids[r] = pid;
        g_rank_count = r + 1;
        if (pid > 0) continue;
        const int code = errno;
        pass_on(SIGKILL);
        supervise(r, options);
        throw Error(ExitCode::does_not_fit,
                    fmt::format("cannot start rank {} of {}: {}", r, count, std::strerror(code)));
    }
    const int code = supervise(count, options);
    for (size_t s = 0; s < std::size(kPassedOn); ++s) ::sigaction(kPassedOn[s], &old[s], nullptr);
    return code;
}

}  // namespace plumb
