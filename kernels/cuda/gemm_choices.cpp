#include "kernels/cuda/gemm_choices.h"

#include <utility>

namespace plumb::cuda {

std::string GemmChoices::use(const GemmHeading& machine, const std::string& table, bool measure) {
    in_use_ = true;
    measures_ = measure;
    counts_ = {};
    bound_.clear();
    given_ = {machine, {}};
    chosen_.heading = machine;
    if (table.empty()) return "";
    GemmTable read;
    std::string reason = parse_gemm_table(table, &read);
    if (reason.empty()) reason = difference(read.heading, machine);
    if (reason.empty()) given_ = std::move(read);
    return reason;
}

void GemmChoices::take(const GemmEntry& entry) {
    chosen_.entries.push_back(entry);
    ++counts_.taken;
}

void GemmChoices::add_tuned(const GemmEntry& entry, double tuning_ms) {
    chosen_.entries.push_back(entry);
    ++counts_.tuned;
    counts_.tuning_ms += tuning_ms;
}

// A table keeps what this process has not used: another batch size may come back. The hash is of
// what was bound, so that what others left in the table does not change it.
GpuProducts GemmChoices::products() const {
    GpuProducts result = counts_;
    if (!in_use_) return result;
    const GemmTable chosen = merged({}, chosen_);
    GemmTable bound{chosen_.heading, {}};
    for (const ProductKey& product : bound_)
        if (const GemmEntry* entry = find_entry(chosen, product)) bound.entries.push_back(*entry);
    result.bound_hash = algorithms_hash(bound);
    result.table = format_gemm_table(merged(given_, chosen_));
    return result;
}

}  // namespace plumb::cuda
