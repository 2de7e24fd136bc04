#include "runtime/engine/product_table.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "kernels/cuda/gemm_choices.h"
#include "tests/formats/checkpoint_fixture.h"

namespace plumb {
namespace {

namespace fs = std::filesystem;

// A GPU of which only the products are there: each that is bound takes its algorithm from the table
// or, in this run, one that names the run.
class GpuOfProducts final : public Gpu {
  public:
    explicit GpuOfProducts(uint8_t run, std::string name = "NVIDIA H200", int64_t cublaslt = 130002)
        : run_(run), name_(std::move(name)), cublaslt_(cublaslt) {}

    std::string use_products(const std::string& table, bool measure) override {
        return choices_.use(heading(), table, measure);
    }
    GpuProducts products() override { return choices_.products(); }
    std::string products_file() override { return cuda::table_file_name(heading()); }
    void bind(int64_t products) {
        for (int64_t m = 1; m <= products; ++m) {
            cuda::ProductKey key = {};
            key.m = m;
            key.n = key.k = key.a_stride = key.b_stride = key.c_stride = 64;
            key.a_align = key.b_align = key.c_align = 16;
            choices_.bind(key);
            if (const cuda::GemmEntry* given = choices_.given(key))
                choices_.take(*given);
            else
                choices_.add_tuned({key, 1000 * run_, 3, {run_}}, 40);
        }
    }

    Isa isa() const noexcept override { return Isa::sm90; }
    const char* name() const noexcept override { return name_.c_str(); }
    void* allocate(int64_t) noexcept override { return nullptr; }
    void release(void*) noexcept override {}
    void* allocate_host(int64_t) noexcept override { return nullptr; }
    void release_host(void*) noexcept override {}
    GpuMemory memory() noexcept override { return {}; }
    std::string memory_holders() override { return ""; }
    void begin_preparing() noexcept override {}
    void end_preparing() noexcept override {}
    void* stream(GpuLane) noexcept override { return nullptr; }
    void copy_to_gpu(void*, const void*, int64_t, GpuLane) noexcept override {}
    void copy_to_host(void*, const void*, int64_t, GpuLane) noexcept override {}
    void fill(void*, uint8_t, int64_t, GpuLane) noexcept override {}
    void record(GpuEvent, GpuLane) noexcept override {}
    void wait(GpuLane, GpuEvent) noexcept override {}
    void host_wait(GpuEvent) noexcept override {}
    void host_wait(GpuLane) noexcept override {}
    void begin_capture(GpuLane) noexcept override {}
    Graph end_capture(GpuLane) noexcept override { return 0; }
    void launch(Graph, GpuLane) noexcept override {}

  private:
    cuda::GemmHeading heading() const { return {name_, cublaslt_, 32 * kMiB}; }

    uint8_t run_;
    std::string name_;
    int64_t cublaslt_;
    cuda::GemmChoices choices_;
};

struct ProductTable : ::testing::Test {
    TemporaryFolder temporary;
    std::string folder = temporary.path() + "/runs/a";
    std::string path = path_of(GpuOfProducts(0));

    std::string path_of(GpuOfProducts gpu) const { return folder + "/" + gpu.products_file(); }
    // A run that binds so many products; returns the notes on its table.
    std::string run(GpuOfProducts* gpu, int64_t products,
                    const FileLayer& files = posix_files()) const {
        const std::string note = load_products({folder}, *gpu, true, files);
        gpu->bind(products);
        const std::string stored = store_products(folder, *gpu, files);
        return note + (note.empty() || stored.empty() ? "" : "\n") + stored;
    }
    static std::vector<int> algorithms(GpuOfProducts& gpu) {
        cuda::GemmTable table;
        EXPECT_EQ(cuda::parse_gemm_table(gpu.products().table, &table), "");
        std::vector<int> found;
        for (const cuda::GemmEntry& entry : table.entries) found.push_back(entry.algorithm[0]);
        return found;
    }
    std::string text() const {
        const auto bytes = read_bytes(path);
        return {bytes.begin(), bytes.end()};
    }
    void write(const std::string& text) const { write_bytes(path, {text.begin(), text.end()}); }
};

TEST_F(ProductTable, TheNextRunMeasuresNothing) {
    GpuOfProducts first(1);
    EXPECT_EQ(run(&first, 4), "");
    EXPECT_EQ(products_line(first.products()),
              "products: 0 algorithms from the table, 4 measured in 0.2 s");
    EXPECT_EQ(text(), first.products().table);
    const auto written = fs::last_write_time(path);

    GpuOfProducts second(2);
    EXPECT_EQ(run(&second, 4), "");
    EXPECT_EQ(products_line(second.products()),
              "products: 4 algorithms from the table, 0 measured in 0.0 s");
    EXPECT_EQ(fs::last_write_time(path), written);  // nothing changed: not written again
    EXPECT_EQ(second.products().table, first.products().table);

    GpuOfProducts third(3);
    EXPECT_EQ(run(&third, 6), "");
    EXPECT_EQ(text(), third.products().table);
    EXPECT_EQ(third.products().taken, 4);
    EXPECT_EQ(third.products().tuned, 2);
    EXPECT_EQ(std::distance(fs::directory_iterator(folder), {}), 1);
}

TEST_F(ProductTable, ARunWithoutProductsLeavesNoFile) {
    GpuOfProducts gpu(1);
    store_products(folder, gpu);
    EXPECT_FALSE(fs::exists(folder));
    EXPECT_EQ(products_line(gpu.products()), "");
}

TEST_F(ProductTable, WhatIsDamagedIsMeasuredAnewAndReplaced) {
    GpuOfProducts first(1);
    run(&first, 3);
    std::string flipped = first.products().table;
    flipped[flipped.size() / 2] ^= 1;
    for (const std::string& damaged : {flipped, first.products().table.substr(0, 100),
                                       std::string(), std::string(5 * kMiB, 'x')}) {
        write(damaged);
        GpuOfProducts gpu(2);
        const std::string note = run(&gpu, 3);
        EXPECT_EQ(note.rfind(path + " is not used: ", 0), 0u) << note;
        EXPECT_NE(note.find("; the algorithms of products are measured anew"), std::string::npos);
        EXPECT_NE(note.find("\n" + path + " was no table of this GPU and is replaced"),
                  std::string::npos)
            << note;
        EXPECT_EQ(gpu.products().tuned, 3);
        EXPECT_EQ(text(), gpu.products().table);
        GpuOfProducts next(3);
        EXPECT_EQ(run(&next, 3), "");
        EXPECT_EQ(next.products().taken, 3);
    }
    write(flipped);
    GpuOfProducts infers(3);
    const std::string note = load_products({folder}, infers, false);
    EXPECT_NE(note.find("; products take cuBLASLt's first proposals"), std::string::npos) << note;
    EXPECT_EQ(text(), flipped);
}

TEST_F(ProductTable, EachGpuAndLibraryHasItsOwn) {
    GpuOfProducts h200(1), a100(2, "NVIDIA A100"), newer(3, "NVIDIA H200", 130100);
    for (GpuOfProducts* gpu : {&h200, &a100, &newer}) {
        EXPECT_EQ(run(gpu, 3), "");
        EXPECT_EQ(gpu->products().tuned, 3);
    }
    EXPECT_EQ(std::distance(fs::directory_iterator(folder), {}), 3);
    EXPECT_EQ(text(), h200.products().table) << "as it was";
    // Damage to one costs the others nothing.
    write_bytes(path_of(a100), {'x'});
    GpuOfProducts again(4);
    EXPECT_EQ(run(&again, 3), "");
    EXPECT_EQ(again.products().taken, 3);
    EXPECT_EQ(read_bytes(path_of(a100)), std::vector<uint8_t>{'x'});
}

TEST_F(ProductTable, AnotherGpusUnderThisOnesNameIsNotUsed) {
    GpuOfProducts first(1), second(2, "NVIDIA A100");
    run(&first, 3);
    fs::rename(path, path_of(second));
    EXPECT_EQ(run(&second, 3), path_of(second) +
                                   " is not used: its GPU is NVIDIA H200, this one is NVIDIA A100; "
                                   "the algorithms of products are measured anew\n" +
                                   path_of(second) + " was no table of this GPU and is replaced");
    EXPECT_EQ(second.products().tuned, 3);
}

TEST_F(ProductTable, TheFirstFolderThatHasOneCounts) {
    GpuOfProducts first(1), second(2), third(3);
    run(&first, 2);
    const std::string other = temporary.path() + "/runs/b";
    EXPECT_EQ(load_products({other, folder}, second, true), "");
    second.bind(3);
    EXPECT_EQ(algorithms(second), (std::vector<int>{1, 1, 2}));
    EXPECT_EQ(store_products(other, second), "");
    EXPECT_EQ(load_products({other, folder}, third, true), "");
    third.bind(3);
    EXPECT_EQ(algorithms(third), (std::vector<int>{1, 1, 2}));
    EXPECT_EQ(text(), first.products().table) << "only read";
    // One that cannot be read does not hide the next.
    GpuOfProducts fourth(4);
    fs::remove_all(other);
    fs::create_directories(other + "/" + fourth.products_file());
    const std::string note = load_products({other, folder}, fourth, true);
    EXPECT_NE(note.find(other), std::string::npos) << note;
    EXPECT_NE(note.find("; " + path + " is used"), std::string::npos) << note;
    fourth.bind(2);
    EXPECT_EQ(algorithms(fourth), (std::vector<int>{1, 1}));
}

// It may be readable tomorrow: nothing is put in its place.
TEST_F(ProductTable, WhatCannotBeReadIsANoteAndStays) {
    const std::string measured = "; the algorithms of products are measured anew\n";
    const std::string stays =
        "; it is left as it is, and the algorithms of this run are not stored";
    GpuOfProducts first(1), second(2);
    run(&first, 2);
    const std::string before = text();
    FaultyFiles files;
    files.fault_at = 0;
    files.for_ever = true;
    files.error = EACCES;
    const std::string denied = "cannot open " + path + ": Permission denied (errno 13)";
    EXPECT_EQ(run(&second, 2, files.layer), denied + measured + denied + stays);
    EXPECT_EQ(second.products().tuned, 2);
    EXPECT_EQ(text(), before);

    fs::remove(path);
    fs::create_directories(path);
    GpuOfProducts third(3);
    const std::string note = run(&third, 2);
    EXPECT_NE(note.find(measured), std::string::npos) << note;
    EXPECT_NE(note.find(path, note.find(measured)), std::string::npos) << note;
    EXPECT_NE(note.find(stays), std::string::npos) << note;
    EXPECT_EQ(third.products().tuned, 2);
    EXPECT_TRUE(fs::is_directory(path));
}

// What could not be read at the start is kept beside what was measured then.
TEST_F(ProductTable, WhatCanBeReadAgainIsKept) {
    GpuOfProducts first(1), second(2), third(3);
    run(&first, 4);
    FaultyFiles files;
    files.fault_at = 0;
    EXPECT_NE(run(&second, 2, files.layer), "");
    EXPECT_EQ(run(&third, 4), "");
    EXPECT_EQ(algorithms(third), (std::vector<int>{2, 2, 1, 1}));
}

// Every call of reading and of writing fails once: a note says so, and the old table or the new one
// is there, whole, and nothing else.
TEST_F(ProductTable, AnErrorOfTheDiskCostsNoTableAndNoRun) {
    GpuOfProducts first(1);
    run(&first, 2);
    const std::string before = text();
    int64_t failures = 0;
    for (int64_t n = 0, calls = 1; n < calls; ++n) {
        write(before);
        FaultyFiles files;
        files.fault_at = n;
        GpuOfProducts gpu(2);
        const std::string note = run(&gpu, 5, files.layer);
        if (note.empty()) {
            EXPECT_EQ(text(), gpu.products().table) << n;
        } else {
            EXPECT_NE(note.find(" /"), std::string::npos) << note;
            ++failures;
        }
        if (files.calls > n) calls = n + 2;
        EXPECT_TRUE(text() == before || text() == gpu.products().table) << n;
        EXPECT_EQ(std::distance(fs::directory_iterator(folder), {}), 1) << n;
    }
    EXPECT_GE(failures, 10);
    EXPECT_NE(text(), before);
}

}  // namespace
}  // namespace plumb
