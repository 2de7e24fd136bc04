#include <fmt/format.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "runtime/base/check.h"
#include "runtime/comm/start.h"

namespace plumb {

namespace {

class SelfGroup final : public Group {
  public:
    SelfGroup(GroupAxis axis, FlightRecorder* recorder) : Group(axis, {0}, 0, recorder) {}
    bool needs_room() const noexcept override { return false; }
    void finish_sends(const CommPlace&, int32_t, int32_t) noexcept override {}

  private:
    void do_open(const CommPlace&, const Offer& offer, const char** parts,
                 uint32_t) noexcept override {
        parts[0] = offer.from;
    }
    void do_close(const CommPlace&, uint32_t) noexcept override {}
    void do_send(int32_t, const char*, int64_t) noexcept override {
        CHECK_NOTE(false, "one rank has nobody to send to");
    }
    void do_receive(const CommPlace&, int32_t, char*, int64_t) noexcept override {
        CHECK_NOTE(false, "one rank has nobody to receive from");
    }
};

class SelfWorld final : public World {
  public:
    SelfWorld() : World(0, 1) {}
    ~SelfWorld() override {
        for (const Window& window : windows_)
            ::munmap(window.data, static_cast<size_t>(window.size_bytes));
    }
    std::vector<char> all_gather(const void* mine, int64_t size_bytes) override {
        const char* first = static_cast<const char*>(mine);
        return {first, first + size_bytes};
    }
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
        CHECK(ranks.size() == 1 && ranks[0] == 0);
        return std::make_unique<SelfGroup>(axis, recorder());
    }
    [[noreturn]] void fail(ExitCode code, const char* message) noexcept override {
        print_error(message);
        ::_exit(static_cast<int>(code));
    }

  private:
    std::vector<Window> windows_;
};

}  // namespace

std::unique_ptr<World> make_self_world() {
    return std::make_unique<SelfWorld>();
}

}  // namespace plumb
