#include "runtime/exec/seal.h"

#include <gtest/gtest.h>
#include <malloc.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <string>
#include <utility>

namespace plumb {
namespace {

// Where a sanitizer owns the allocator nothing is enforced, and the library says so.
#ifdef PLUMB_SANITIZE
TEST(Seal, IsNotEnforcedUnderSanitizers) {
    EXPECT_FALSE(seal_is_enforced());
}
#else

class SealDeathTest : public testing::Test {
  protected:
    void SetUp() override {
        ASSERT_TRUE(seal_is_enforced());
        testing::FLAGS_gtest_death_test_style = "threadsafe";
    }
};

void make_string(size_t length) {
    const std::string text(length, 'x');
    std::fputs(text.c_str(), stderr);
}

TEST_F(SealDeathTest, AStringDies) {
    EXPECT_DEATH(
        {
            seal();
            make_string(100);
        },
        "allocation of 101 bytes after seal");
}

TEST_F(SealDeathTest, AnFopenDies) {
    EXPECT_DEATH(
        {
            seal();
            std::FILE* file = std::fopen("/dev/null", "r");
            std::exit(file != nullptr ? 0 : 1);
        },
        "allocation of [0-9]+ bytes after seal");
}

// Apart from the macro: a pragma inside macro arguments is not where it seems.
void allocate_on_the_team() {
    warm_threads(2);
    seal();
#pragma omp parallel num_threads(2)
    make_string(100);
}

TEST_F(SealDeathTest, AnOpenMpThreadDies) {
    EXPECT_DEATH(allocate_on_the_team(), "allocation of 101 bytes after seal");
}

// Through pointers: clang++ drops an allocation whose result is only compared.
TEST_F(SealDeathTest, EveryEntryPointDies) {
    void* (*volatile zeroed)(size_t, size_t) = std::calloc;
    void* (*volatile again)(void*, size_t) = std::realloc;
    void* (*volatile aligned)(size_t, size_t) = std::aligned_alloc;
    void* (*volatile array)(void*, size_t, size_t) = reallocarray;
    void* (*volatile pages)(size_t) = valloc;
    void* (*volatile whole_pages)(size_t) = pvalloc;
    const std::pair<std::function<void*()>, const char*> cases[] = {
        {[&] { return zeroed(3, 5); }, "allocation of 15 bytes after seal"},
        {[&] { return again(nullptr, 1 << 20); }, "allocation of 1048576 bytes after seal"},
        {[&] { return aligned(64, 128); }, "allocation of 128 bytes after seal"},
        {[&] { return array(nullptr, 7, 11); }, "allocation of 77 bytes after seal"},
        {[&] { return pages(123); }, "allocation of 123 bytes after seal"},
        {[&] { return whole_pages(124); }, "allocation of 124 bytes after seal"},
    };
    for (const auto& [allocate, message] : cases)
        EXPECT_DEATH(
            {
                seal();
                std::exit(allocate() != nullptr ? 0 : 1);
            },
            message);
    // Before seal() they do what they promise.
    void* page = whole_pages(1);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(page) % 4096, 0u);
    EXPECT_GE(malloc_usable_size(page), 4096u);
    std::free(page);
    EXPECT_EQ(array(nullptr, SIZE_MAX / 2, 3), nullptr);
}

TEST_F(SealDeathTest, LibraryScopesAreCountedByLibrary) {
    EXPECT_EXIT(
        {
            seal();
            {
                const LibraryScope scope(Library::libc);
                std::FILE* file = std::fopen("/dev/null", "r");
                std::fclose(file);
            }
            const AllocationCounts counts = allocation_counts();
            unseal();
            const int libc = static_cast<int>(Library::libc);
            const int openmp = static_cast<int>(Library::openmp);
            std::exit(counts.calls[libc] >= 1 && counts.bytes[libc] > 0 && counts.calls[openmp] == 0
                          ? 7
                          : 1);
        },
        testing::ExitedWithCode(7), "");
}

#endif

}  // namespace
}  // namespace plumb
