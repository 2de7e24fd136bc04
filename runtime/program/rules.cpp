#include "runtime/program/rules.h"

#include <fmt/format.h>

#include "runtime/base/error.h"

namespace plumb::rules {

void require_dim(const Op& op, const char* what, int64_t found, int64_t expected) {
    if (found != expected)
        throw Error(ExitCode::bad_input, fmt::format("op {}: {}: {} is not {}",
                                                     op_row(op.kind).name, what, found, expected));
}

void require_rank(const Op& op, const char* operand, const Shape& shape, int rank) {
    if (shape.rank != rank)
        throw Error(ExitCode::bad_input,
                    fmt::format("op {}: operand {} has {} dims, not {}", op_row(op.kind).name,
                                operand, shape.rank, rank));
}

void require_same(const Op& op, const char* what, const Shape& a, const Shape& b) {
    if (a == b) return;
    require_dim(op, what, a.rank, b.rank);
    for (int i = 0; i < a.rank; ++i) require_dim(op, what, a.dim[i], b.dim[i]);
}

int64_t check_sequences(const Op& op, const Shape& sequences, int64_t rows, int64_t found) {
    if (sequences.rank == 0) return rows;
    require_same(op, "sequences", sequences, make_shape(rows));
    return found;
}

void check_nothing(const Op&, const Shape*) {}

void check_same_two(const Op& op, const Shape* shape) {
    require_same(op, "operands", shape[0], shape[1]);
}

}  // namespace plumb::rules
