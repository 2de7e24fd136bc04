// The algorithms of a GPU's matrix products, stored beside the checkpoints of a run. cuBLASLt has
// many for a product; they differ in speed and in the last bits. They are measured once, when ops
// are bound, and kept in the run's folder (kernels/cuda/gemm_table.h has the text), so that a
// resumed training or an inference of the same run binds fast and rounds alike. Losing the file
// loses a second of measuring and those bits, nothing else: a table that is damaged or of another
// machine is measured anew.
// Path: cold.
#pragma once

#include <string>

#include "formats/file_layer.h"
#include "kernels/gpu.h"
#include "runtime/base/hash.h"

namespace plumb {

inline constexpr const char* kProductTableName = "gemm_algorithms.txt";

// Where the table of a checkpoint's run lies: `checkpoint`, or the folder that a step lies in.
std::string products_folder_of(const std::string& checkpoint);

// Before ops are bound: hands the table in a folder, where there is one, to the GPU. Returns "" or
// a note that says why it is not used. Throws Error (io) when it is there and cannot be read.
std::string load_products(const std::string& folder, Gpu& gpu, bool measure,
                          const FileLayer& files = posix_files());

// After ops were bound: writes the GPU's table to the folder, which is made if it is missing, when
// it is another than the one there. Whoever looks finds the old table or the new one, whole. Throws
// Error (io).
void store_products(const std::string& folder, Gpu& gpu, const FileLayer& files = posix_files());

// "products: 12 algorithms from the table, 3 measured in 0.4 s"; "" when there are none.
std::string products_line(const GpuProducts& products);

// XXH3-128 of what decides bits in a table: GPU, library, products and their algorithms, not the
// times. A text that is no table, or empty, counts as an empty one.
Hash128 product_table_hash(const std::string& table);

// Of all that decides bits of a run on a GPU and is neither in its program nor in its data: another
// hash explains another last digit.
Hash128 numerics_hash(const std::string& table, bool tf32);

}  // namespace plumb
