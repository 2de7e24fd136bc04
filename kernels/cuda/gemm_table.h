// The table of cuBLASLt's algorithms that is stored with a run, so that it need not be tuned again
// and its products keep their bits: for each product the algorithm as the library's own 64 opaque
// bytes, which only the version that made them understands, on the GPU for which it was tuned. As
// text it has a line per product and a hash at its end; equal tables are equal texts. Nothing in a
// text is trusted: what was not written by format_gemm_table is refused as a whole. Plain C++, so
// that it is tested without a GPU.
// Path: cold.
#pragma once

#include <array>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/cuda/product_key.h"
#include "runtime/base/hash.h"

namespace plumb::cuda {

// Algorithms are good for one of these only.
struct GemmHeading {
    std::string gpu;  // "NVIDIA H200"
    int64_t cublaslt_version = 0;
    int64_t workspace_bytes = 0;

    bool operator==(const GemmHeading&) const = default;
};

struct GemmEntry {
    ProductKey product = {};
    int64_t time_ns = 0;  // median
    int32_t tried = 0;    // candidates from which it was chosen
    std::array<uint8_t, 64> algorithm = {};

    bool operator==(const GemmEntry&) const = default;
};

// At most kGemmCandidates are tried for a product.
inline constexpr int kGemmCandidates = 8;

struct GemmTable {
    GemmHeading heading;
    std::vector<GemmEntry> entries;  // by product, each at most once; at most kProductsMax

    bool operator==(const GemmTable&) const = default;
};

// No text of a table is longer.
inline constexpr int64_t kGemmTableBytesMax = kMiB;

// "gemm_algorithms-NVIDIA-H200-3f2a91c0.txt": another heading's table is another file. Nothing of a
// GPU's name but letters and digits gets into it; the last word tells apart what then looks alike.
std::string table_file_name(const GemmHeading& heading);

std::string format_gemm_table(const GemmTable& table);
// "" or, with *table as it was, what is wrong: "line 7: m is 0; it must be from 1 to ...".
std::string parse_gemm_table(std::string_view text, GemmTable* table);

// "" or in which way a table is another machine's: "its GPU is X, this one is Y".
std::string difference(const GemmHeading& table, const GemmHeading& machine);

// nullptr when there is none.
const GemmEntry* find_entry(const GemmTable& table, const ProductKey& product);

// The entries of both under `now`'s heading, `now`'s where both have a product; when there is no
// room for all, the last of `before` are left out. The entries of `now` may be in any order.
GemmTable merged(const GemmTable& before, GemmTable now);

// XXH3-128 of what decides bits in a table whose entries are in order: GPU, library, products and
// their algorithms, not the times. Zeros without entries.
Hash128 algorithms_hash(const GemmTable& table);

// The number of the fastest, but the first of those that are within 1 % of it: what is measured
// twice shall be chosen twice, and cuBLASLt put the candidate it expects most of first. The times,
// at least one, may be infinite.
int choose_candidate(const float* us, int count) noexcept;

}  // namespace plumb::cuda
