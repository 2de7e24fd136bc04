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

    Tracked() = default;
    Tracked(double v) : value(v) {}  // NOLINT: converts as a double would
    Tracked(double v, double from_operands, double flips, double units = 1)
        : value(v), flip(flips) {
        error2 = from_operands + (units * kUnit * v) * (units * kUnit * v);
    }
};

// Of a double: the standard functions; of a Tracked: those below.
using std::exp;
using std::log;
using std::sqrt;
using std::tanh;

inline double square(double x) {
    return x * x;
}
inline Tracked operator+(Tracked a, Tracked b) {
    return {a.value + b.value, a.error2 + b.error2, a.flip + b.flip};
}
inline Tracked operator-(Tracked a, Tracked b) {
    return {a.value - b.value, a.error2 + b.error2, a.flip + b.flip};
}
inline Tracked operator-(Tracked a) {
    a.value = -a.value;
    return a;
}
inline Tracked operator*(Tracked a, Tracked b) {
    return {a.value * b.value, square(b.value) * a.error2 + square(a.value) * b.error2,
            std::fabs(b.value) * a.flip + std::fabs(a.value) * b.flip};
}
inline Tracked operator/(Tracked a, Tracked b) {
    const double q = a.value / b.value;
    return {q, (a.error2 + square(q) * b.error2) / square(b.value),
            (a.flip + std::fabs(q) * b.flip) / std::fabs(b.value)};
}
inline Tracked& operator+=(Tracked& a, Tracked b) {
    return a = a + b;
}
// f(a), y = f(a.value), with a slope of f.
inline Tracked function_of(Tracked a, double y, double slope, double units) {
    return {y, square(slope) * a.error2, std::fabs(slope) * a.flip, units};
}
inline Tracked exp(Tracked a) {
    const double y = std::exp(a.value);
    return function_of(a, y, y, 2);
}
inline Tracked log(Tracked a) {
    return function_of(a, std::log(a.value), 1 / a.value, 2);
}
inline Tracked sqrt(Tracked a) {
    const double y = std::sqrt(a.value);
    return function_of(a, y, y > 0 ? 1 / (2 * y) : 0, 1);
}
inline Tracked tanh(Tracked a) {
    const double y = std::tanh(a.value);
    return function_of(a, y, 1 - y * y, 2);
}
inline double value_of(double x) {
    return x;
}
inline double value_of(Tracked x) {
    return x.value;
}
inline double tolerance_of(Tracked x) {
    return kTolerance * std::sqrt(x.error2) + x.flip + 1e-37;
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

}  // namespace plumb::testing
