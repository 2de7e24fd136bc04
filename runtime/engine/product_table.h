// The algorithms of a GPU's matrix products, stored beside the checkpoints of a run. cuBLASLt has
// many for a product; they differ in speed and in the last bits. They are measured once, when ops
// are bound, and kept in the run's folder (kernels/cuda/gemm_table.h has the text), a file for each
// GPU and version of cuBLASLt, so that a resumed training or an inference of the same run binds
// fast and rounds alike. Losing the file loses a second of measuring and those bits, so nothing
// about it ends a run: what cannot be read or written is a note. A file that is there and cannot
// be read is left as it is; one that is no table of this GPU is replaced.
// Path: cold.
#pragma once

#include <string>
#include <vector>

#include "formats/file_layer.h"
#include "kernels/gpu.h"

namespace plumb {

// Where the table of a checkpoint's run lies: `checkpoint`, or the folder that a step lies in.
std::string products_folder_of(const std::string& checkpoint);

// Before ops are bound: hands this GPU's table to it, from the first of the folders that has one
// that can be read. Returns "" or a note that says why one is not used and what is done instead.
std::string load_products(const std::vector<std::string>& folders, Gpu& gpu, bool measure,
                          const FileLayer& files = posix_files());

// After ops were bound: writes the GPU's table to the folder, which is made if it is missing, when
// there is anything new in it. Whoever looks finds the old table or the new one, whole. Returns ""
// or a note: why the table is not stored, or that the file there was none.
std::string store_products(const std::string& folder, Gpu& gpu,
                           const FileLayer& files = posix_files());

// "products: 12 algorithms from the table, 3 measured in 0.4 s"; "" when there are none.
std::string products_line(const GpuProducts& products);

}  // namespace plumb
