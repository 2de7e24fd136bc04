// cuBLASLt, loaded at run time: it is half a gigabyte, comes with the CUDA toolkit and is needed
// only where a GPU is used.
// Path: cold.
#pragma once

#include <string>

#include "kernels/gpu.h"

namespace plumb::cuda {

// Loads the library, and touches no GPU. Returns "" or what is missing, in a sentence for the user.
std::string find_cublaslt();

// Loads it and makes its handle; the products of this process are then computed on the
// current device. Returns as find_cublaslt.
std::string load_cublaslt();

// cuBLASLt's version as it numbers itself, e.g. 130002; 0 before it is loaded.
long cublaslt_version() noexcept;

// Gpu::use_products, Gpu::products and Gpu::products_file, after load_cublaslt.
std::string use_products(const std::string& table, bool measure);
GpuProducts products_in_use();
std::string products_file();

}  // namespace plumb::cuda
