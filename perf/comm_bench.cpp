// How fast ranks of this host gather and add each other's tensors, beside the limit of the bytes
// that must move and, under mpirun, beside MPI's own collectives, in turns in one run:
//   comm_bench --ranks 2                      processes that it starts itself
//   scripts/mpirun.sh mpirun 2 comm_bench     ranks that mpirun has started
// Path: cold.
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cstring>
#include <numeric>
#include <vector>

#include "runtime/base/log.h"
#include "runtime/comm/start.h"
#ifdef PLUMB_HAS_MPI
#include <mpi.h>
#endif

namespace plumb {
namespace {

struct BenchOptions {
    int32_t ranks = 2;
    int64_t mib = 64;  // of the whole tensor
    int32_t turns = 15;
};

double now_s() {
    return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch())
        .count();
}

double median(std::vector<double> values) {
    std::nth_element(values.begin(), values.begin() + static_cast<int64_t>(values.size()) / 2,
                     values.end());
    return values[values.size() / 2];
}

class CommBench {
  public:
    CommBench(World& world, const BenchOptions& options)
        : world_(world),
          options_(options),
          ranks_(world.size()),
          slice_bytes_(align_up(options.mib * kMiB / ranks_, 4096)),
          window_(world.make_window(ranks_ * slice_bytes_)),
          room_(static_cast<size_t>(ranks_ * slice_bytes_)),
          result_(static_cast<size_t>(ranks_ * slice_bytes_ / 4)) {
        if (ranks_ < 2) throw Error(ExitCode::bad_input, "1 rank exchanges nothing; --ranks 2");
        std::vector<int32_t> all(static_cast<size_t>(ranks_));
        std::iota(all.begin(), all.end(), 0);
        group_ = world.make_group(GroupAxis::data, all);
        auto* values = reinterpret_cast<float*>(window_.data);
        for (int64_t i = 0; i < ranks_ * slice_bytes_ / 4; ++i)
            values[i] = static_cast<float>(i % 1000 + world.rank());
    }

    void run() {
        const auto whole = static_cast<double>(ranks_ * slice_bytes_);
        const auto slice = static_cast<double>(slice_bytes_);
        const auto others = static_cast<double>(ranks_ - 1) * slice;
        std::vector<double> copy, gather, reduce, mpi_gather, mpi_reduce;
        for (int32_t turn = 0; turn <= options_.turns; ++turn) {
            const double times[] = {timed([&] { copy_alone(); }), timed([&] { all_gather(); }),
                                    timed([&] { mpi_all_gather(); }),
                                    timed([&] { reduce_scatter(); }),
                                    timed([&] { mpi_reduce_scatter(); })};
            if (turn == 0) continue;  // pages and caches
            copy.push_back(times[0]);
            gather.push_back(times[1]);
            mpi_gather.push_back(times[2]);
            reduce.push_back(times[3]);
            mpi_reduce.push_back(times[4]);
        }
        if (world_.rank() != 0) return;
        // All ranks copy at once, as they all gather: bytes read and written by each.
        const double bandwidth = 2 * whole / median(copy);
        print_line(STDOUT_FILENO,
                   "{} ranks, a tensor of {} MiB; limit: a copy in each rank at once, {:.1f} GB/s "
                   "a rank",
                   ranks_, options_.mib, bandwidth * 1e-9);
        report("all_gather", 2 * others, bandwidth, median(gather), median(mpi_gather));
        report("reduce_scatter", whole + slice, bandwidth, median(reduce), median(mpi_reduce));
    }

  private:
    template <typename Body>
    double timed(const Body& body) {
        world_.barrier();
        const double start = now_s();
        body();
        const double mine = now_s() - start;
        const std::vector<char> told = world_.all_gather(&mine, sizeof mine);
        double slowest = 0;
        for (int32_t r = 0; r < ranks_; ++r) {
            double seconds;
            std::memcpy(&seconds, told.data() + r * static_cast<int64_t>(sizeof seconds),
                        sizeof seconds);
            slowest = std::max(slowest, seconds);
        }
        return slowest;
    }

    void report(const char* name, double bytes, double bandwidth, double seconds,
                double mpi_seconds) {
        const double limit = bytes / bandwidth;
        print_line(STDOUT_FILENO, "{:<15} {:8.2f} ms, limit {:8.2f} ms: {:3.0f} % of it{}", name,
                   seconds * 1e3, limit * 1e3, 100 * limit / seconds,
                   has_mpi() ? fmt::format("; MPI's own {:8.2f} ms, {:.2f} times as long",
                                           mpi_seconds * 1e3, mpi_seconds / seconds)
                             : "");
    }

    void copy_alone() { std::memcpy(result_.data(), room_.data(), room_.size()); }
    void all_gather() {
        std::vector<const char*> parts(static_cast<size_t>(ranks_));
        const CommPlace place{0, "all_gather"};
        group_->open(place,
                     {window_.data + world_.rank() * slice_bytes_, 0, slice_bytes_, room_.data()},
                     parts.data());
        for (int32_t r = 0; r < ranks_; ++r)
            if (r != world_.rank())
                std::memcpy(window_.data + r * slice_bytes_, parts[static_cast<size_t>(r)],
                            static_cast<size_t>(slice_bytes_));
        group_->close(place);
    }
    void reduce_scatter() {
        std::vector<const char*> parts(static_cast<size_t>(ranks_));
        const CommPlace place{0, "reduce_scatter"};
        group_->open(place, {window_.data, slice_bytes_, slice_bytes_, room_.data()}, parts.data());
        constexpr int64_t kBlock = 2048;  // sums stay in the cache
        const int64_t count = slice_bytes_ / 4;
        for (int64_t first = 0; first < count; first += kBlock) {
            const int64_t end = std::min(count, first + kBlock);
            float* to = result_.data();
            const auto part = [&](int32_t r) {
                return reinterpret_cast<const float*>(parts[static_cast<size_t>(r)]);
            };
            // The first two at once: their sum is written without having been read.
            const float *zero = part(0), *one = part(std::min(1, ranks_ - 1));
            for (int64_t i = first; i < end; ++i) to[i] = zero[i] + one[i];
            for (int32_t r = 2; r < ranks_; ++r) {
                const float* from = part(r);
                for (int64_t i = first; i < end; ++i) to[i] += from[i];
            }
        }
        group_->close(place);
    }

#ifdef PLUMB_HAS_MPI
    static bool has_mpi() {
        return started_by_mpirun();
    }
    void mpi_all_gather() {
        if (has_mpi())
            MPI_Allgather(MPI_IN_PLACE, 0, MPI_FLOAT, room_.data(),
                          static_cast<int>(slice_bytes_ / 4), MPI_FLOAT, MPI_COMM_WORLD);
    }
    void mpi_reduce_scatter() {
        if (has_mpi())
            MPI_Reduce_scatter_block(window_.data, result_.data(),
                                     static_cast<int>(slice_bytes_ / 4), MPI_FLOAT, MPI_SUM,
                                     MPI_COMM_WORLD);
    }
#else
    static bool has_mpi() {
        return false;
    }
    void mpi_all_gather() {}
    void mpi_reduce_scatter() {}
#endif

    World& world_;
    BenchOptions options_;
    int32_t ranks_;
    int64_t slice_bytes_;
    Window window_;
    std::vector<char> room_;
    std::vector<float> result_;
    std::unique_ptr<Group> group_;
};

int bench_main(int argc, char** argv) {
    BenchOptions options;
    bool smoke = false;
    CLI::App app{"Exchanges between ranks beside their limit"};
    app.add_option("--ranks", options.ranks, "Ranks to start, unless mpirun has started them");
    app.add_option("--mib", options.mib, "MiB of the tensor that is gathered or added");
    app.add_option("--turns", options.turns, "Times that each is measured");
    app.add_flag("--smoke", smoke, "Small and short: whether it runs at all");
    CLI11_PARSE(app, argc, argv);
    if (smoke) options.mib = options.turns = 2;
    const auto body = [&](World& world) {
        return run_main([&] {
            CommBench(world, options).run();
            return 0;
        });
    };
    if (!started_by_mpirun()) return run_local_ranks(options.ranks, {}, body);
    return run_main([&] { return body(*make_mpi_world({}, false)); });
}

}  // namespace
}  // namespace plumb

int main(int argc, char** argv) {
    return plumb::bench_main(argc, argv);
}
