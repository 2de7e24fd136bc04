// What attention's forward and backward blocks share: queries across lanes, and masks.
// Path: hot.
#pragma once

#include "kernels/cpu/attention_block.h"
#include "kernels/cpu/vec.h"

namespace plumb::cpu::PLUMB_ISA {

constexpr int64_t kQueries = kAttentionQueryBlock;
constexpr int64_t kKeys = kAttentionKeyBlock;
static_assert(sizeof(KeyRanges::low) == kQueries * sizeof(int32_t));

// to[d][i] = scale * from[i][d]; lanes past the last row are zero.
template <typename T>
PLUMB_INLINE void transpose_rows(const T* from, int64_t row, int64_t rows, int64_t size,
                                 float scale, float* to) {
    for (int64_t i = 0; i < rows; ++i)
        for (int64_t d = 0; d < size; d += kLanes) {
            float part[kLanes];
            store(part, load_part(from + i * row + d, size - d) * splat(scale));
            for (int64_t l = 0; l < lesser(kLanes, size - d); ++l)
                to[(d + l) * kQueries + i] = part[l];
        }
    for (int64_t d = 0; d < size; ++d)
        for (int64_t i = rows; i < kQueries; ++i) to[d * kQueries + i] = 0.0F;
}
PLUMB_INLINE void transpose_rows(const float* from, int64_t row, int64_t rows, int64_t size,
                                 float scale, float* to) {
    for (int64_t d = 0; d < size; ++d) {
        for (int64_t i = 0; i < rows; ++i) to[d * kQueries + i] = from[i * row + d] * scale;
        for (int64_t i = rows; i < kQueries; ++i) to[d * kQueries + i] = 0.0F;
    }
}
// to[d] = scale * from[d][i], the way back of one row.
template <typename T>
PLUMB_INLINE void transpose_back(const float* from, int64_t i, int64_t size, float scale, T* to) {
    for (int64_t d = 0; d < size; d += kLanes) {
        const int64_t lanes = size - d;
        float part[kLanes] = {};
        for (int64_t l = 0; l < lesser(kLanes, lanes); ++l) part[l] = from[(d + l) * kQueries + i];
        store_part(to + d, load(part) * splat(scale), lanes);
    }
}
PLUMB_INLINE void transpose_back(const float* from, int64_t i, int64_t size, float scale,
                                 float* to) {
    for (int64_t d = 0; d < size; ++d) to[d] = from[d * kQueries + i] * scale;
}

// Rows as floats: themselves, or widened into `to`, whole vectors each.
struct FloatRows {
    const float* at;
    int64_t row;
};
PLUMB_INLINE FloatRows float_rows(const float* from, int64_t row, int64_t, int64_t, float*) {
    return {from, row};
}
template <typename T>
PLUMB_INLINE FloatRows float_rows(const T* from, int64_t row, int64_t rows, int64_t size,
                                  float* to) {
    const int64_t to_row = round_up_to(size, kLanesMax);
    for (int64_t i = 0; i < rows; ++i)
        for (int64_t d = 0; d < size; d += kLanes)
            store(to + i * to_row + d, load_part(from + i * row + d, size - d));
    return {to, to_row};
}

// Completes the lanes past the last query and the extremes.
PLUMB_INLINE void finish_ranges(int64_t queries, KeyRanges* ranges) {
    for (int64_t i = queries; i < kQueries; ++i) {
        ranges->low[i] = ranges->low[queries - 1];
        ranges->high[i] = ranges->high[queries - 1];
    }
    ranges->low_max = ranges->low[0];
    ranges->high_min = ranges->high[0];
    for (int64_t i = 1; i < queries; ++i) {
        if (ranges->low[i] > ranges->low_max) ranges->low_max = ranges->low[i];
        if (ranges->high[i] < ranges->high_min) ranges->high_min = ranges->high[i];
    }
}

// Ranges of causal queries t .. t + queries of a sequence; returns the first key any of them sees.
PLUMB_INLINE int64_t segment_ranges(const int32_t* segment_start, int64_t t, int64_t queries,
                                    KeyRanges* ranges) {
    int64_t begin = t;
    for (int64_t i = 0; i < queries; ++i) {
        ranges->low[i] = segment_start[t + i];
        ranges->high[i] = static_cast<int32_t>(t + i);
        begin = lesser(begin, segment_start[t + i]);
    }
    finish_ranges(queries, ranges);
    return greater(begin, 0);
}

PLUMB_INLINE bool needs_mask(const KeyRanges& ranges, int64_t key, int64_t keys) {
    return key < ranges.low_max || key + keys - 1 > ranges.high_min;
}

// Scores of keys that a query does not see become -inf.
PLUMB_INLINE void mask_scores(const KeyRanges& ranges, int64_t key, int64_t keys, int64_t at,
                              float* scores) {
    VecI low, high;
    __builtin_memcpy(&low, ranges.low + at, sizeof low);
    __builtin_memcpy(&high, ranges.high + at, sizeof high);
    for (int64_t j = 0; j < keys; ++j) {
        const VecI index = static_cast<int32_t>(key + j) - VecI{};
        const VecF s = load(scores + j * kQueries + at);
        const VecI seen = (index >= low) & (index <= high);
        store(scores + j * kQueries + at, seen ? s : splat(-__builtin_inff()));
    }
}

}  // namespace plumb::cpu::PLUMB_ISA
