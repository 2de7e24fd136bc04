// A double that carries an estimate of the error that the same computation has in fp32.
//
// Derivation of the tolerance (running error analysis, Higham 2002, section 3.3, in its statistical
// form): every fp32 operation adds an error of at most u = 2^-24 of its result, of random sign, so
// that independent errors add in quadrature:
//   c = a + b: e_c^2 = e_a^2 + e_b^2 + (u c)^2       c = a b: e_c^2 = (b e_a)^2 + (a e_b)^2 + (u
//   c)^2
// A sum of K terms of size t then has e ~ u t K / sqrt(3) when they agree in sign and u t sqrt(K)
// when they do not: the "few ulps times sqrt(K)" of a tight test, for each element by itself.
// exp and its kin add 2u. Kernels order their sums differently (lanes, blocks), which only lowers
// the error; errors that are not independent (a shared maximum, mean or rstd) are what the factor
// kTolerance pays for.
//
// A value that is stored as bf16 or f16 and read again (stored_as) is rounded here as well; that is
// exact, except where the fp32 error reaches across the middle between two values of the dtype: the
// kernel may then have the neighbour. Such flips are few and as large as an ulp of the dtype, so
// they are bounded and not estimated: `flip` adds up absolutely, to first order, and is no part of
// the statistics. Whatever else is rounded once, when it is written, is compared through
// rounded_to(value -+ tolerance) and adds no error at all.
//
// A value that a kernel may round on its way into a product (may_round; op.h says where) keeps its
// value here. If it is rounded, to nearest, its error is at most u = 2^-8 (bf16) or 2^-11 (f16) of
// it: `rounding` adds up what that does to a result, absolutely and to first order, which no kernel
// exceeds. Many such errors are independent and no further from 0 than u in either direction, of a
// standard deviation of at most u / sqrt(3): `rounding2` adds their squares. The smaller of
// `rounding` and kTolerance sqrt(rounding2) counts: the first for few terms, the second for many.
// Path: cold.
#pragma once

#include <cmath>

#include "tests/kernels/value_bits.h"

namespace plumb::testing {

inline constexpr double kUnit = 0x1p-24;
inline constexpr double kTolerance = 5;

struct Tracked {
    double value = 0;
    double error2 = 0;  // squared
    double flip = 0;
    double rounding = 0;
    double rounding2 = 0;  // squared

    Tracked() = default;
    Tracked(double v) : value(v) {}  // NOLINT: converts as a double would
};

// Of a double: the standard functions; of a Tracked: those below.
using std::exp;
using std::log;
using std::sqrt;
using std::tanh;

inline double square(double x) {
    return x * x;
}
// A result `value` of an operation that adds `units` of kUnit, whose slopes by a and b these are.
inline Tracked result_of(double value, double units, Tracked a, double by_a, Tracked b = {},
                         double by_b = 0) {
    Tracked y = value;
    y.error2 = square(by_a) * a.error2 + square(by_b) * b.error2 + square(units * kUnit * value);
    y.flip = std::fabs(by_a) * a.flip + std::fabs(by_b) * b.flip;
    y.rounding = std::fabs(by_a) * a.rounding + std::fabs(by_b) * b.rounding;
    y.rounding2 = square(by_a) * a.rounding2 + square(by_b) * b.rounding2;
    return y;
}
inline Tracked operator+(Tracked a, Tracked b) {
    return result_of(a.value + b.value, 1, a, 1, b, 1);
}
inline Tracked operator-(Tracked a, Tracked b) {
    return result_of(a.value - b.value, 1, a, 1, b, 1);
}
inline Tracked operator-(Tracked a) {
    a.value = -a.value;
    return a;
}
inline Tracked operator*(Tracked a, Tracked b) {
    return result_of(a.value * b.value, 1, a, b.value, b, a.value);
}
inline Tracked operator/(Tracked a, Tracked b) {
    const double q = a.value / b.value;
    return result_of(q, 1, a, 1 / b.value, b, q / b.value);
}
inline Tracked& operator+=(Tracked& a, Tracked b) {
    return a = a + b;
}
inline Tracked exp(Tracked a) {
    const double y = std::exp(a.value);
    return result_of(y, 2, a, y);
}
inline Tracked log(Tracked a) {
    return result_of(std::log(a.value), 2, a, 1 / a.value);
}
inline Tracked sqrt(Tracked a) {
    const double y = std::sqrt(a.value);
    return result_of(y, 1, a, y > 0 ? 1 / (2 * y) : 0);
}
inline Tracked tanh(Tracked a) {
    const double y = std::tanh(a.value);
    return result_of(y, 2, a, 1 - y * y);
}
inline double value_of(double x) {
    return x;
}
inline double value_of(Tracked x) {
    return x.value;
}
inline double tolerance_of(Tracked x) {
    return kTolerance * std::sqrt(x.error2) + x.flip +
           std::min(x.rounding, kTolerance * std::sqrt(x.rounding2)) + 1e-37;
}

// What a value is after it was stored; finite differences (double) need functions that are smooth.
inline double stored_as(Dtype, double x) {
    return x;
}
inline Tracked stored_as(Dtype dtype, Tracked x) {
    if (!is_half(dtype)) return x;
    const double tolerance = tolerance_of(x);
    Tracked y = rounded_to(dtype, x.value);
    y.flip = std::max(rounded_to(dtype, x.value + tolerance) - y.value,
                      y.value - rounded_to(dtype, x.value - tolerance));
    return y;
}

// A value that may enter a product rounded to a 16-bit dtype.
inline double may_round(Dtype, double x) {
    return x;
}
inline Tracked may_round(Dtype dtype, Tracked x) {
    const double most = (dtype == Dtype::bf16 ? 0x1p-8 : 0x1p-11) * std::fabs(x.value);
    x.rounding += most;
    x.rounding2 += square(most) / 3;
    return x;
}

}  // namespace plumb::testing
