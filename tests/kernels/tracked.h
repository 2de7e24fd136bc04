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
// Path: cold.
#pragma once

#include <cmath>

namespace plumb::testing {

inline constexpr double kUnit = 0x1p-24;
inline constexpr double kTolerance = 5;

struct Tracked {
    double value = 0;
    double error2 = 0;  // squared

    Tracked() = default;
    Tracked(double v) : value(v) {}  // NOLINT: converts as a double would
    Tracked(double v, double from_operands, double units = 1) : value(v) {
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
    return {a.value + b.value, a.error2 + b.error2};
}
inline Tracked operator-(Tracked a, Tracked b) {
    return {a.value - b.value, a.error2 + b.error2};
}
inline Tracked operator-(Tracked a) {
    a.value = -a.value;
    return a;
}
inline Tracked operator*(Tracked a, Tracked b) {
    return {a.value * b.value, square(b.value) * a.error2 + square(a.value) * b.error2};
}
inline Tracked operator/(Tracked a, Tracked b) {
    const double q = a.value / b.value;
    return {q, (a.error2 + square(q) * b.error2) / square(b.value)};
}
inline Tracked& operator+=(Tracked& a, Tracked b) {
    return a = a + b;
}
inline Tracked exp(Tracked a) {
    const double y = std::exp(a.value);
    return {y, square(y) * a.error2, 2};
}
inline Tracked log(Tracked a) {
    return {std::log(a.value), a.error2 / square(a.value), 2};
}
inline Tracked sqrt(Tracked a) {
    const double y = std::sqrt(a.value);
    return {y, y > 0 ? a.error2 / square(2 * y) : 0};
}
inline Tracked tanh(Tracked a) {
    const double y = std::tanh(a.value);
    return {y, square(1 - y * y) * a.error2, 2};
}
inline double value_of(double x) {
    return x;
}
inline double value_of(Tracked x) {
    return x.value;
}
inline double tolerance_of(Tracked x) {
    return kTolerance * std::sqrt(x.error2) + 1e-37;
}

}  // namespace plumb::testing
