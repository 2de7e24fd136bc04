#include "runtime/engine/product_table.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "kernels/cuda/gemm_choices.h"
#include "runtime/base/error.h"
#include "tests/formats/checkpoint_fixture.h"

namespace plumb {
namespace {

namespace fs = std::filesystem;

// A GPU of which only the products are there: each that is bound takes its algorithm from the table
// or, in this run, one that names the run.
class GpuOfProducts final : public Gpu {
  public:
    explicit GpuOfProducts(uint8_t run, std::string name = "NVIDIA H200")
        : run_(run), name_(std::move(name)) {}

    std::string use_products(const std::string& table, bool measure) override {
        return choices_.use({name_, 130002, 32 * kMiB}, table, measure);
    }
    GpuProducts products() override { return choices_.products(); }
    void bind(int64_t products) {
        for (int64_t m = 1; m <= products; ++m) {
            cuda::ProductKey key = {};
            key.m = m;
            key.n = key.k = key.a_stride = key.b_stride = key.c_stride = 64;
            key.a_align = key.b_align = key.c_align = 16;
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
    uint8_t run_;
    std::string name_;
    cuda::GemmChoices choices_;
};

struct ProductTable : ::testing::Test {
    TemporaryFolder temporary;
    std::string folder = temporary.path() + "/runs/a";
    std::string path = folder + "/" + kProductTableName;

    // A run that binds so many products; returns the note on its table.
    std::string run(GpuOfProducts* gpu, int64_t products) {
        const std::string note = load_products(folder, *gpu, true);
        gpu->bind(products);
        store_products(folder, *gpu);
        return note;
    }
    std::string text() const {
        const auto bytes = read_bytes(path);
        return {bytes.begin(), bytes.end()};
    }
    void write(const std::string& text) const { write_bytes(path, {text.begin(), text.end()}); }
    std::string error() {
        GpuOfProducts gpu(9);
        try {
            load_products(folder, gpu, true);
        } catch (const Error& e) {
            EXPECT_EQ(e.code(), ExitCode::io);
            return e.what();
        }
        return "";
    }
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
        EXPECT_EQ(gpu.products().tuned, 3);
        EXPECT_EQ(text(), gpu.products().table);
    }
}

TEST_F(ProductTable, AnotherGpusIsReplacedWithANote) {
    GpuOfProducts first(1), second(2, "NVIDIA A100");
    run(&first, 3);
    EXPECT_EQ(run(&second, 3), path +
                                   " is not used: its GPU is NVIDIA H200, this one is NVIDIA A100; "
                                   "the algorithms of products are measured anew");
    EXPECT_EQ(text(), second.products().table);
}

TEST_F(ProductTable, WhatCannotBeReadIsAnErrorThatNamesIt) {
    fs::create_directories(path);
    EXPECT_NE(error().find(path), std::string::npos) << error();
}

// Every call of reading and of writing fails once: reading says so, and after writing the old table
// or the new one is there, whole, and nothing else.
TEST_F(ProductTable, AnErrorOfTheDiskCostsNoTable) {
    GpuOfProducts first(1);
    run(&first, 2);
    const std::string before = text();
    int64_t failures = 0;
    for (int64_t n = 0, calls = 1; n < calls; ++n) {
        write(before);
        FaultyFiles files;
        files.fault_at = n;
        GpuOfProducts gpu(2);
        const auto work = [&] {
            load_products(folder, gpu, true, files.layer);
            gpu.bind(5);
            store_products(folder, gpu, files.layer);
        };
        try {
            work();
        } catch (const Error& e) {
            EXPECT_EQ(e.code(), ExitCode::io);
            EXPECT_NE(std::string(e.what()).find(" /"), std::string::npos) << e.what();
            ++failures;
        }
        if (files.calls > n) calls = n + 2;
        EXPECT_TRUE(text() == before || text() == gpu.products().table) << n;
        EXPECT_EQ(std::distance(fs::directory_iterator(folder), {}), 1) << n;
    }
    EXPECT_GE(failures, 10);
    EXPECT_NE(text(), before);
}

TEST_F(ProductTable, TheHashIsOfAlgorithmsAndNotOfTimes) {
    const auto table = [](uint8_t run, int64_t products, const char* gpu = "NVIDIA H200") {
        GpuOfProducts made(run, gpu);
        made.use_products("", true);
        made.bind(products);
        return made.products().table;
    };
    const std::string one = table(1, 3);
    cuda::GemmTable slower;
    ASSERT_EQ(cuda::parse_gemm_table(one, &slower), "");
    for (cuda::GemmEntry& e : slower.entries) e.time_ns += 5;
    EXPECT_NE(cuda::format_gemm_table(slower), one);
    EXPECT_EQ(product_table_hash(cuda::format_gemm_table(slower)), product_table_hash(one));
    EXPECT_NE(product_table_hash(table(2, 3)), product_table_hash(one));
    EXPECT_NE(product_table_hash(table(1, 4)), product_table_hash(one));
    EXPECT_NE(product_table_hash(table(1, 3, "NVIDIA A100")), product_table_hash(one));
    EXPECT_EQ(product_table_hash("nonsense"), product_table_hash(""));
    EXPECT_NE(product_table_hash(""), product_table_hash(one));

    EXPECT_EQ(numerics_hash(one, true), numerics_hash(one, true));
    EXPECT_NE(numerics_hash(one, true), numerics_hash(one, false));
    EXPECT_NE(numerics_hash(one, false), numerics_hash(table(2, 3), false));
}

}  // namespace
}  // namespace plumb
