// What benchmarks need of a case of the kernels' table: what it costs at least, and operands that
// make it do its whole work (tests want odd ones). The costs are the op table's, but where an op
// touches a part of its operands only; this is the one place that says so.
// Path: cold.
#pragma once

#include <algorithm>

#include "tests/kernels/bound_case.h"

namespace plumb::testing {

inline double flops_of(const KernelCase& c) {
    double flops = op_flops(c.op(), c.shape);
    if (c.kind == OpKind::attention_cached) {
        // The cache is full at the last token (set_bench_values): earlier ones see fewer positions.
        const auto tokens = static_cast<double>(c.shape[AttentionCachedOperands::o].dim[1]);
        const auto positions =
            static_cast<double>(c.shape[AttentionCachedOperands::k_cache].dim[1]);
        flops *= 1 - (tokens - 1) / (2 * positions);
    }
    return flops;
}

inline double bytes_of(const KernelCase& c) {
    const double bytes = op_bytes(c.op(), c.shape);
    const auto value_bytes = static_cast<double>(dtype_bytes(c.value_dtype));
    const auto elements = [&](int operand) {
        return static_cast<double>(c.shape[operand].elements());
    };
    switch (c.kind) {
        case OpKind::embed: {  // only the rows looked up, not the tables
            const double tables = c.shape[EmbedOperands::wpe].rank > 0 ? 2 : 1;
            return (1 + tables) * value_bytes * elements(EmbedOperands::x);
        }
        case OpKind::embed_backward: {
            const double tables = c.shape[EmbedBackwardOperands::dwpe].rank > 0 ? 2 : 1;
            return (tables * 2 * 4 + value_bytes) * elements(EmbedBackwardOperands::dx);
        }
        case OpKind::attention_cached: {  // the cache is read; of it only new tokens are written
            using O = AttentionCachedOperands;
            const Shape& cache = c.shape[O::k_cache];
            const auto row = static_cast<double>(cache.dim[2] * cache.dim[3]);
            const auto tokens = static_cast<double>(c.shape[O::qkv].rows());
            return bytes - 2 * value_bytes * (elements(O::k_cache) - tokens * row);
        }
        default:
            return bytes;
    }
}

// One segment, so that attention sees the full causal triangle; a cache that is full at the last
// token. Operands without values here are left alone.
inline void set_bench_values(const KernelCase& c, Values* values) {
    auto& v = *values;
    if (c.kind == OpKind::attention || c.kind == OpKind::attention_backward) {
        auto& start = v[c.kind == OpKind::attention ? 3 : 5];
        std::fill(start.begin(), start.end(), 0.0);
    }
    if (c.kind == OpKind::attention_backward) std::fill(v[4].begin(), v[4].end(), 8.0);  // lse
    if (c.kind == OpKind::attention_cached) {
        using O = AttentionCachedOperands;
        const int64_t t = c.shape[O::o].dim[1], cache = c.shape[O::k_cache].dim[1];
        auto& positions = v[O::positions];
        for (size_t i = 0; i < positions.size(); ++i)
            positions[i] = static_cast<double>(cache - t + static_cast<int64_t>(i) % t);
    }
}

}  // namespace plumb::testing
