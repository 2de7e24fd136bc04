// A View is a pointer and its dims: what hot code sees of a tensor. It owns nothing, is dense and
// row-major, and never comes from anywhere but a bound operand (or a test's buffer).
//
// Shape letters, used as suffixes everywhere (x_BTD, w_FD):
//   B batch (sequences)   T tokens of a sequence   N = B*T tokens   D hidden size   F feed-forward
//   H query heads   G key/value heads   K head size   V vocabulary   L layers   S cache positions
//   E experts   O outputs and I inputs of a matmul
// Path: hot.
#pragma once

#include "runtime/base/check.h"
#include "runtime/base/types.h"

namespace plumb {

inline constexpr int kMaxRank = 4;

struct Shape {
    int64_t dim[kMaxRank] = {1, 1, 1, 1};
    int32_t rank = 0;
    int32_t reserved = 0;

    int64_t elements() const {
        int64_t n = 1;
        for (int i = 0; i < rank; ++i) n *= dim[i];
        return n;
    }
    // Product of all dims but the last: the rows a matmul or norm sees.
    int64_t rows() const {
        int64_t n = 1;
        for (int i = 0; i + 1 < rank; ++i) n *= dim[i];
        return n;
    }
    int64_t last() const { return rank == 0 ? 1 : dim[rank - 1]; }
    bool operator==(const Shape& other) const {
        if (rank != other.rank) return false;
        for (int i = 0; i < rank; ++i)
            if (dim[i] != other.dim[i]) return false;
        return true;
    }
};

inline Shape make_shape(int64_t a) {
    return Shape{{a, 1, 1, 1}, 1, 0};
}
inline Shape make_shape(int64_t a, int64_t b) {
    return Shape{{a, b, 1, 1}, 2, 0};
}
inline Shape make_shape(int64_t a, int64_t b, int64_t c) {
    return Shape{{a, b, c, 1}, 3, 0};
}
inline Shape make_shape(int64_t a, int64_t b, int64_t c, int64_t d) {
    return Shape{{a, b, c, d}, 4, 0};
}

}  // namespace plumb
