// How the products of a process come by their algorithms: from the table of an earlier run, else by
// measuring, and what is then handed on to later runs. The bookkeeping of Gpu::use_products and
// Gpu::products; cublaslt.cpp measures. Plain C++: the emulated GPU keeps the same books.
// Path: cold.
#pragma once

#include <set>
#include <string>

#include "kernels/cuda/gemm_table.h"
#include "kernels/gpu.h"

namespace plumb::cuda {

class GemmChoices {
  public:
    // Gpu::use_products on this machine, the same each time. What was chosen before stays chosen.
    std::string use(const GemmHeading& machine, const std::string& table, bool measure = true);
    bool in_use() const { return in_use_; }
    // Whether what the table does not say is measured.
    bool measures() const { return measures_; }

    // A product is prepared, for the first time or again.
    void bind(const ProductKey& product) { bound_.insert(product); }

    // What the table says of a product; nullptr: nothing.
    const GemmEntry* given(const ProductKey& product) const { return find_entry(given_, product); }
    // A product has the algorithm that the table says, or one that took `tuning_ms` to find.
    void take(const GemmEntry& entry);
    void add_tuned(const GemmEntry& entry, double tuning_ms);

    // Gpu::products.
    GpuProducts products() const;

  private:
    bool in_use_ = false;
    bool measures_ = false;
    GemmTable given_;
    GemmTable chosen_;  // in the order of choosing
    std::set<ProductKey> bound_;
    GpuProducts counts_;
};

}  // namespace plumb::cuda
