#include <fmt/format.h>

#include "runtime/comm/start.h"

#ifdef PLUMB_HAS_MPI
#include <fcntl.h>
#include <mpi.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <fstream>

#include "runtime/base/check.h"
#include "runtime/base/log.h"
#include "runtime/comm/shm_world.h"
#endif

namespace plumb {

#ifndef PLUMB_HAS_MPI

bool started_by_mpirun() noexcept {
    return false;
}

std::unique_ptr<World> make_mpi_world(const WorldOptions&, bool) {
    throw Error(ExitCode::bad_input,
                "this program was built without MPI; --local-ranks starts "
                "ranks on one host without it");
}

#else

namespace {

using Clock = std::chrono::steady_clock;

// MPI counts elements in an int.
constexpr int64_t kPieceBytes = kGiB;

[[noreturn]] void stop_all(ExitCode code) noexcept {
    MPI_Abort(MPI_COMM_WORLD, static_cast<int>(code));
    ::_exit(static_cast<int>(code));
}

void check_mpi(int status, const char* call) noexcept {
    if (status == MPI_SUCCESS) return;
    char text[MPI_MAX_ERROR_STRING];
    int size = 0;
    MPI_Error_string(status, text, &size);
    print_line(STDERR_FILENO, "error: {}: {}", call, text);
    stop_all(ExitCode::peer_lost);
}
#define MPI_CHECK(call) check_mpi(call, #call)

// Where a process can map another's memory: the machine since it was started, and the name space
// of its processes.
std::string host_identity() {
    std::string boot;
    std::getline(std::ifstream("/proc/sys/kernel/random/boot_id"), boot);
    char space[64] = {};
    static_cast<void>(::readlink("/proc/self/ns/pid", space, sizeof space - 1));
    return fmt::format("{} {} {}", boot, space, ::getuid());
}

// MPI makes progress only while it is called, so who waits looks; less and less often, for the
// others may need the processor.
class Patience {
  public:
    Patience(double timeout_s, bool crowded)
        : end_(Clock::now() + std::chrono::duration_cast<Clock::duration>(
                                  std::chrono::duration<double>(timeout_s))),
          looks_left_(crowded ? 50 : 4000) {}
    // False when the time is up.
    bool wait() noexcept {
        if (looks_left_ > 0) {
            --looks_left_;
            return true;
        }
        const timespec pause{0, pause_ns_};
        ::nanosleep(&pause, nullptr);
        pause_ns_ = std::min(2 * pause_ns_, 500'000L);
        return Clock::now() < end_;
    }

  private:
    Clock::time_point end_;
    int32_t looks_left_;
    long pause_ns_ = 10'000;
};

class MpiWorld;

// Ranks that are not all on one host, or are not to see that they are: bytes of others are received
// into planned room.
class MpiGroup final : public Group {
  public:
    MpiGroup(MpiWorld& world, GroupAxis axis, const std::vector<int32_t>& ranks,
             FlightRecorder* recorder);

    bool needs_room() const noexcept override { return true; }
    void finish_sends(const CommPlace& place, int32_t peer, int32_t left) noexcept override;

  private:
    struct Sends {
        MPI_Request request[kSendsMax];
        int32_t first = 0;  // the oldest that may be on its way
        int32_t count = 0;
    };
    void do_open(const CommPlace& place, const Offer& offer, const char** parts,
                 uint32_t) noexcept override;
    void do_close(const CommPlace&, uint32_t) noexcept override {}  // all has been copied
    void do_send(int32_t peer, const char* from, int64_t size_bytes) noexcept override;
    void do_receive(const CommPlace& place, int32_t peer, char* to,
                    int64_t size_bytes) noexcept override;
    int exchange_tag() const noexcept { return 2 * static_cast<int>(axis()); }
    int send_tag() const noexcept { return 2 * static_cast<int>(axis()) + 1; }

    MpiWorld& world_;
    std::vector<MPI_Request> requests_;   // of one open()
    std::vector<int32_t> request_ranks_;  // whose they are, by rank of the world
    std::vector<Sends> sends_;            // by peer
};

class MpiWorld final : public World {
  public:
    MpiWorld(int rank, int size, const WorldOptions& options)
        : World(rank, size), options_(options) {}
    ~MpiWorld() override {
        for (const Window& window : windows_)
            ::munmap(window.data, static_cast<size_t>(window.size_bytes));
        MPI_Finalize();
    }

    std::vector<char> all_gather(const void* mine, int64_t size_bytes) override {
        std::vector<char> all(static_cast<size_t>(size_bytes * size()));
        std::vector<char> piece;
        for (int64_t first = 0; first < size_bytes; first += kMiB) {
            const int64_t bytes = std::min(kMiB, size_bytes - first);
            piece.resize(static_cast<size_t>(bytes * size()));
            MPI_Request request;
            MPI_CHECK(MPI_Iallgather(static_cast<const char*>(mine) + first,
                                     static_cast<int>(bytes), MPI_BYTE, piece.data(),
                                     static_cast<int>(bytes), MPI_BYTE, MPI_COMM_WORLD, &request));
            const int32_t nobody = -1;
            wait({0, "the start"}, &request, &nobody, 1);
            for (int32_t r = 0; r < size(); ++r)
                std::memcpy(all.data() + r * size_bytes + first, piece.data() + r * bytes,
                            static_cast<size_t>(bytes));
        }
        if (size_bytes == 0) {
            char nothing = 0;
            all_gather(&nothing, 1);
        }
        return all;
    }
    using World::all_gather;

    Window make_window(int64_t size_bytes) override {
        void* memory = ::mmap(nullptr, static_cast<size_t>(size_bytes), PROT_READ | PROT_WRITE,
                              MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
        if (memory == MAP_FAILED)
            throw Error(ExitCode::does_not_fit,
                        fmt::format("cannot map {} bytes: {}", size_bytes, std::strerror(errno)));
        windows_.push_back({static_cast<char*>(memory), size_bytes});
        return windows_.back();
    }

    std::unique_ptr<Group> make_group(GroupAxis axis, const std::vector<int32_t>& ranks) override {
        return std::make_unique<MpiGroup>(*this, axis, ranks, recorder());
    }

    [[noreturn]] void fail(ExitCode code, const char* message) noexcept override {
        print_line(STDERR_FILENO, "error: rank {}: {}", rank(), message);
        stop_all(code);
    }

    // Waits for requests; ranks[i] is whose the i-th is, -1: of no single one.
    void wait(const CommPlace& place, MPI_Request* requests, const int32_t* ranks,
              int count) noexcept {
        Patience patience(options_.timeout_s, options_.crowded);
        int done = 0;
        while (true) {
            MPI_CHECK(MPI_Testall(count, requests, &done, MPI_STATUSES_IGNORE));
            if (done != 0) return;
            if (!patience.wait()) break;
        }
        for (int i = 0; i < count; ++i) {
            MPI_CHECK(MPI_Test(&requests[i], &done, MPI_STATUS_IGNORE));
            if (done == 0) lose(place, ranks[i]);
        }
    }

  private:
    [[noreturn]] void lose(const CommPlace& place, int32_t rank) noexcept {
        char text[256];
        char* end = rank < 0 ? fmt::format_to_n(text, 32, "some rank").out
                             : fmt::format_to_n(text, 32, "rank {}", rank).out;
        end = fmt::format_to_n(end, sizeof text - 33,
                               " did not arrive at {} of step {} within {:.1f} s", place.what,
                               place.step, options_.timeout_s)
                  .out;
        *end = '\0';
        fail(ExitCode::peer_lost, text);
    }

    WorldOptions options_;
    std::vector<Window> windows_;
};

MpiGroup::MpiGroup(MpiWorld& world, GroupAxis axis, const std::vector<int32_t>& ranks,
                   FlightRecorder* recorder)
    : Group(axis, ranks, world.rank(), recorder),
      world_(world),
      requests_(2 * ranks.size()),
      sends_(ranks.size()) {
    for (const int32_t r : ranks)
        if (r != world.rank()) request_ranks_.insert(request_ranks_.end(), {r, r});
}

void MpiGroup::do_open(const CommPlace& place, const Offer& offer, const char** parts,
                       uint32_t) noexcept {
    CHECK_NOTE(size() == 1 || offer.room != nullptr, "no room for the bytes of other hosts");
    for (int32_t r = 0; r < size(); ++r)
        parts[r] =
            r == rank() ? offer.from + r * offer.stride_bytes : offer.room + r * offer.size_bytes;
    for (int64_t first = 0; first < offer.size_bytes; first += kPieceBytes) {
        const auto bytes = static_cast<int>(std::min(kPieceBytes, offer.size_bytes - first));
        size_t count = 0;
        for (int32_t r = 0; r < size(); ++r) {
            if (r == rank()) continue;
            MPI_CHECK(MPI_Irecv(offer.room + r * offer.size_bytes + first, bytes, MPI_BYTE,
                                world_rank(r), exchange_tag(), MPI_COMM_WORLD,
                                &requests_[count++]));
            MPI_CHECK(MPI_Isend(offer.from + r * offer.stride_bytes + first, bytes, MPI_BYTE,
                                world_rank(r), exchange_tag(), MPI_COMM_WORLD,
                                &requests_[count++]));
        }
        world_.wait(place, requests_.data(), request_ranks_.data(), static_cast<int>(count));
    }
}

void MpiGroup::do_send(int32_t peer, const char* from, int64_t size_bytes) noexcept {
    CHECK_NOTE(size_bytes <= kPieceBytes, "a send of more than 1 GiB");
    Sends& sends = sends_[static_cast<size_t>(peer)];
    CHECK_NOTE(sends.count < kSendsMax, "too many sends on their way");
    MPI_Request& request = sends.request[(sends.first + sends.count++) % kSendsMax];
    MPI_CHECK(MPI_Isend(from, static_cast<int>(size_bytes), MPI_BYTE, world_rank(peer), send_tag(),
                        MPI_COMM_WORLD, &request));
}

void MpiGroup::do_receive(const CommPlace& place, int32_t peer, char* to,
                          int64_t size_bytes) noexcept {
    MPI_Request request;
    const int32_t from = world_rank(peer);
    MPI_CHECK(MPI_Irecv(to, static_cast<int>(size_bytes), MPI_BYTE, from, send_tag(),
                        MPI_COMM_WORLD, &request));
    world_.wait(place, &request, &from, 1);
}

void MpiGroup::finish_sends(const CommPlace& place, int32_t peer, int32_t left) noexcept {
    Sends& sends = sends_[static_cast<size_t>(peer)];
    const int32_t to = world_rank(peer);
    for (; sends.count > left; --sends.count) {
        world_.wait(place, &sends.request[sends.first], &to, 1);
        sends.first = (sends.first + 1) % kSendsMax;
    }
}

// A world of one host that MPI has brought together; what follows does without it.
class MpiHostWorld final : public ShmWorld {
  public:
    using ShmWorld::ShmWorld;
    ~MpiHostWorld() override { MPI_Finalize(); }
};

// The board of all ranks, made by rank 0 and found by the others through its process.
HostBoard* share_board(int rank, int size) {
    struct Made {
        int32_t pid, fd, error;
    } made{};
    const int64_t bytes = host_board_bytes(size);
    char* memory = nullptr;
    if (rank == 0) {
        made = {::getpid(), make_shared("plumb-board", bytes), 0};
        memory = made.fd < 0 ? nullptr : map_shared(made.fd, bytes);
        if (memory == nullptr)
            made.error = errno;
        else
            reinterpret_cast<HostBoard*>(memory)->rank_count = size;
    }
    MPI_CHECK(MPI_Bcast(&made, sizeof made, MPI_BYTE, 0, MPI_COMM_WORLD));
    if (made.error == 0 && rank > 0) {
        const std::string path = fmt::format("/proc/{}/fd/{}", made.pid, made.fd);
        const int fd = ::open(path.c_str(), O_RDWR | O_CLOEXEC);
        memory = fd < 0 ? nullptr : map_shared(fd, bytes);
        if (fd >= 0) ::close(fd);
    }
    // Where one cannot, all go another way.
    int mapped = memory != nullptr ? 1 : 0, all_mapped = 0;
    MPI_CHECK(MPI_Allreduce(&mapped, &all_mapped, 1, MPI_INT, MPI_MIN, MPI_COMM_WORLD));
    if (rank == 0 && made.fd >= 0) ::close(made.fd);
    if (all_mapped == 0 && memory != nullptr) ::munmap(memory, static_cast<size_t>(bytes));
    return all_mapped == 0 ? nullptr : reinterpret_cast<HostBoard*>(memory);
}

bool on_one_host(int size) {
    char mine[256] = {};
    host_identity().copy(mine, sizeof mine - 1);
    std::vector<char> all(sizeof mine * static_cast<size_t>(size));
    MPI_CHECK(MPI_Allgather(mine, sizeof mine, MPI_BYTE, all.data(), sizeof mine, MPI_BYTE,
                            MPI_COMM_WORLD));
    for (int r = 0; r < size; ++r)
        if (std::memcmp(mine, all.data() + sizeof mine * static_cast<size_t>(r), sizeof mine) != 0)
            return false;
    return true;
}

}  // namespace

// What mpirun of Open MPI, of MPICH and Slurm's srun tell the processes that they start.
bool started_by_mpirun() noexcept {
    for (const char* name : {"OMPI_COMM_WORLD_SIZE", "PMIX_RANK", "PMI_RANK"})
        if (std::getenv(name) != nullptr) return true;
    return false;
}

std::unique_ptr<World> make_mpi_world(const WorldOptions& options, bool between_hosts) {
    int given = 0, rank = 0, size = 0;
    MPI_CHECK(MPI_Init_thread(nullptr, nullptr, MPI_THREAD_FUNNELED, &given));
    MPI_CHECK(MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN));
    MPI_CHECK(MPI_Comm_rank(MPI_COMM_WORLD, &rank));
    MPI_CHECK(MPI_Comm_size(MPI_COMM_WORLD, &size));
    if (!between_hosts && on_one_host(size))
        if (HostBoard* board = share_board(rank, size))
            return std::make_unique<MpiHostWorld>(rank, size, board, options);
    return std::make_unique<MpiWorld>(rank, size, options);
}

#endif

}  // namespace plumb
