// Every op in its most obvious form, after the definitions in runtime/program/op.h, on numbers of
// type T: double (finite differences) or Tracked (values with the error fp32 may have). Operands
// are in their op's order; absent ones are empty.
// Path: cold.
#pragma once

#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/cuda/scratch.h"
#include "tests/kernels/case_table.h"
#include "tests/kernels/tracked.h"

namespace plumb::testing {

template <typename T>
using Operands = std::vector<std::vector<T>>;

template <typename T>
struct Reference {
    const KernelCase& c;
    const StepScalars& s;
    Operands<T>& v;
    bool rounds_weights = false;  // of attention: probabilities and gradients of scores

    T& at(int operand, int64_t i) {
        return v[static_cast<size_t>(operand)][static_cast<size_t>(i)];
    }
    int64_t index(int operand, int64_t i) { return std::llround(value_of(at(operand, i))); }
    bool has(int operand) const { return !v[static_cast<size_t>(operand)].empty(); }
    // What the op reads again after it was rounded to the value dtype. What it only writes is
    // rounded where results are compared.
    T stored(T x) const { return stored_as(c.value_dtype, x); }
    T weight(T x) const { return rounds_weights ? may_round(c.value_dtype, x) : x; }

    void embed() {
        const int64_t d = c.shape[0].last();
        for (int64_t n = 0; n < c.shape[0].rows(); ++n)
            for (int64_t i = 0; i < d; ++i) {
                at(0, n * d + i) = at(1, index(3, n) * d + i);
                if (has(2)) at(0, n * d + i) += at(2, index(4, n) * d + i);
            }
    }
    void embed_backward() {
        const int64_t d = c.shape[2].last();
        for (int64_t n = 0; n < c.shape[2].rows(); ++n)
            for (int64_t i = 0; i < d; ++i) {
                if (has(0)) at(0, index(3, n) * d + i) += at(2, n * d + i);
                if (has(1)) at(1, index(4, n) * d + i) += at(2, n * d + i);
            }
    }

    void norm() {
        const int64_t d = c.shape[0].last();
        const T count = static_cast<double>(d);
        for (int64_t n = 0; n < c.shape[0].rows(); ++n) {
            T mean = 0, spread = 0;
            if (c.attrs.norm.kind == NormKind::layer)
                for (int64_t i = 0; i < d; ++i) mean += at(2, n * d + i) / count;
            for (int64_t i = 0; i < d; ++i) {
                const T x = at(2, n * d + i) - mean;
                spread += x * x / count;
            }
            const T rstd = T(1) / sqrt(spread + T(c.attrs.norm.eps));
            for (int64_t i = 0; i < d; ++i) {
                at(0, n * d + i) = (at(2, n * d + i) - mean) * rstd * at(3, i);
                if (has(4)) at(0, n * d + i) += at(4, i);
            }
            if (has(1)) {
                at(1, 2 * n) = mean;
                at(1, 2 * n + 1) = rstd;
            }
        }
    }
    void norm_backward() {
        const int64_t d = c.shape[0].last();
        const T count = static_cast<double>(d);
        for (int64_t n = 0; n < c.shape[0].rows(); ++n) {
            const T mean = at(5, 2 * n), rstd = at(5, 2 * n + 1);
            T mean_g = 0, mean_gx = 0;
            for (int64_t i = 0; i < d; ++i) {
                const T xhat = (at(4, n * d + i) - mean) * rstd, dy = at(3, n * d + i);
                if (c.attrs.norm.kind == NormKind::layer) mean_g += dy * at(6, i) / count;
                mean_gx += dy * at(6, i) * xhat / count;
                if (has(1)) at(1, i) += dy * xhat;
                if (has(2)) at(2, i) += dy;
            }
            for (int64_t i = 0; i < d; ++i) {
                const T xhat = (at(4, n * d + i) - mean) * rstd;
                const T dx = rstd * (at(3, n * d + i) * at(6, i) - mean_g - xhat * mean_gx);
                at(0, n * d + i) = c.updates(0) ? at(0, n * d + i) + dx : dx;
            }
        }
    }

    static T gelu(T x) { return T(0.5) * x * (T(1) + tanh(gelu_argument(x))); }
    static T gelu_argument(T x) { return T(std::sqrt(2 / M_PI)) * (x + T(0.044715) * x * x * x); }
    static T gelu_slope(T x) {
        const T t = tanh(gelu_argument(x));
        const T du = T(std::sqrt(2 / M_PI)) * (T(1) + T(3 * 0.044715) * x * x);
        return T(0.5) * (T(1) + t) + T(0.5) * x * (T(1) - t * t) * du;
    }
    void matmul() {
        const int64_t o_count = c.shape[0].last(), i_count = c.shape[2].last();
        for (int64_t n = 0; n < c.shape[0].rows(); ++n)
            for (int64_t o = 0; o < o_count; ++o) {
                T y = 0;
                for (int64_t i = 0; i < i_count; ++i)
                    y += at(2, n * i_count + i) * at(3, o * i_count + i);
                if (has(4)) y += at(4, o);
                const bool activated = c.attrs.matmul.activation == Activation::gelu_tanh;
                if (activated) y = stored(y);
                if (has(1)) at(1, n * o_count + o) = y;
                if (activated) y = gelu(y);
                if (has(5)) y += at(5, n * o_count + o);
                at(0, n * o_count + o) = y;
            }
    }
    void matmul_dx() {
        const int64_t i_count = c.shape[0].last(), o_count = c.shape[1].last();
        for (int64_t n = 0; n < c.shape[0].rows(); ++n)
            for (int64_t i = 0; i < i_count; ++i) {
                T dx = c.updates(0) ? at(0, n * i_count + i) : T(0);
                for (int64_t o = 0; o < o_count; ++o)
                    dx += at(1, n * o_count + o) * at(2, o * i_count + i);
                at(0, n * i_count + i) = dx;
            }
    }
    void matmul_dw() {
        const int64_t o_count = c.shape[2].last(), i_count = c.shape[3].last();
        for (int64_t n = 0; n < c.shape[2].rows(); ++n)
            for (int64_t o = 0; o < o_count; ++o) {
                const T dy = at(2, n * o_count + o);
                if (has(1)) at(1, o) += dy;
                for (int64_t i = 0; has(0) && i < i_count; ++i)
                    at(0, o * i_count + i) += dy * at(3, n * i_count + i);
            }
    }
    void gelu() {
        for (size_t i = 0; i < v[0].size(); ++i) v[0][i] = gelu(v[1][i]);
    }
    void gelu_backward() {
        for (size_t i = 0; i < v[0].size(); ++i) v[0][i] = v[0][i] * gelu_slope(v[1][i]);
    }

    static T sigmoid(T x) { return T(1) / (T(1) + exp(-x)); }
    void swiglu() {
        const int64_t f = c.shape[0].last();
        for (int64_t n = 0; n < c.shape[0].rows(); ++n)
            for (int64_t i = 0; i < f; ++i) {
                const T g = at(1, n * 2 * f + i);
                at(0, n * f + i) = g * sigmoid(g) * at(1, n * 2 * f + f + i);
            }
    }
    void swiglu_backward() {
        const int64_t f = c.shape[1].last();
        for (int64_t n = 0; n < c.shape[1].rows(); ++n)
            for (int64_t i = 0; i < f; ++i) {
                const T g = at(2, n * 2 * f + i), up = at(2, n * 2 * f + f + i);
                const T dh = at(1, n * f + i), sg = sigmoid(g);
                at(0, n * 2 * f + i) = dh * up * (sg + g * sg * (T(1) - sg));
                at(0, n * 2 * f + f + i) = dh * g * sg;
            }
    }

    void rope() {
        const AttentionAttrs& a = c.attrs.attention;
        const int64_t k = a.head_size, width = c.shape[0].last();
        for (int64_t n = 0; n < c.shape[0].rows(); ++n)
            for (int64_t h = 0; h < a.heads + a.kv_heads; ++h)
                for (int64_t i = 0; i < k / 2; ++i) {
                    const double f = std::pow(a.rope_theta, -2.0 * double(i) / double(k));
                    const double angle = double(index(1, n)) * f * (a.inverse != 0 ? -1 : 1);
                    // Constants that fp32 rounds once.
                    const T cosine = T(std::cos(angle)) * T(1), sine = T(std::sin(angle)) * T(1);
                    T& x = at(0, n * width + h * k + i);
                    T& y = at(0, n * width + h * k + k / 2 + i);
                    const T x_old = x;
                    x = x_old * cosine - y * sine;
                    y = y * cosine + x_old * sine;
                }
    }

    // Attention of one query over keys begin .. end given by functions; writes k numbers at o.
    template <typename Key, typename Val>
    T attend(const T* q, int64_t begin, int64_t end, Key key, Val val, T* o) {
        const int64_t k = c.attrs.attention.head_size;
        const T scale = c.attrs.attention.scale;
        std::vector<T> p(static_cast<size_t>(end - begin));
        double max = -1e300;
        for (int64_t j = begin; j < end; ++j) {
            T& score = p[static_cast<size_t>(j - begin)];
            score = 0;
            for (int64_t d = 0; d < k; ++d) score += q[d] * key(j, d);
            score = score * scale;
            max = std::max(max, value_of(score));
        }
        T sum = 0;
        for (T& x : p) {
            x = exp(x - T(max));
            sum += x;
        }
        for (T& x : p) x = weight(x);
        for (int64_t d = 0; d < k; ++d) {
            o[d] = 0;
            for (int64_t j = begin; j < end; ++j)
                o[d] += p[static_cast<size_t>(j - begin)] * val(j, d);
            o[d] = o[d] / sum;
        }
        return log(sum) + T(max);
    }
    void attention() {
        const AttentionAttrs& a = c.attrs.attention;
        const int64_t k = a.head_size, h_count = a.heads, t_count = c.shape[2].dim[1];
        const int64_t width = c.shape[2].last(), group = a.heads / a.kv_heads;
        for (int64_t b = 0; b < c.shape[2].dim[0]; ++b)
            for (int64_t h = 0; h < h_count; ++h)
                for (int64_t t = 0; t < t_count; ++t) {
                    const auto kv = [&](int64_t j, int64_t head, int64_t d) {
                        return at(2, (b * t_count + j) * width + head * k + d);
                    };
                    const int64_t kh = h_count + h / group, vh = kh + a.kv_heads;
                    const T lse = attend(
                        &at(2, (b * t_count + t) * width + h * k), index(3, b * t_count + t), t + 1,
                        [&](int64_t j, int64_t d) { return kv(j, kh, d); },
                        [&](int64_t j, int64_t d) { return kv(j, vh, d); },
                        &at(0, ((b * t_count + t) * h_count + h) * k));
                    if (has(1)) at(1, (b * h_count + h) * t_count + t) = lse;
                }
    }
    void attention_backward() {
        const AttentionAttrs& a = c.attrs.attention;
        const int64_t k = a.head_size, h_count = a.heads, t_count = c.shape[0].dim[1];
        const int64_t width = c.shape[0].last(), group = a.heads / a.kv_heads;
        const T scale = a.scale;
        std::fill(v[0].begin(), v[0].end(), T(0));
        for (int64_t b = 0; b < c.shape[0].dim[0]; ++b)
            for (int64_t h = 0; h < h_count; ++h)
                for (int64_t t = 0; t < t_count; ++t) {
                    const int64_t q = (b * t_count + t) * width + h * k;
                    const int64_t o = ((b * t_count + t) * h_count + h) * k;
                    const T lse = at(4, (b * h_count + h) * t_count + t);
                    T delta = 0;
                    for (int64_t d = 0; d < k; ++d) delta += at(3, o + d) * at(1, o + d);
                    for (int64_t j = index(5, b * t_count + t); j <= t; ++j) {
                        const int64_t key = (b * t_count + j) * width + (h_count + h / group) * k;
                        const int64_t val = key + a.kv_heads * k;
                        T score = 0, dp = 0;
                        for (int64_t d = 0; d < k; ++d) {
                            score += at(2, q + d) * at(2, key + d);
                            dp += at(1, o + d) * at(2, val + d);
                        }
                        const T p = exp(score * scale - lse);
                        const T dv = weight(p), ds = weight(p * (dp - delta)) * scale;
                        for (int64_t d = 0; d < k; ++d) {
                            at(0, q + d) += ds * at(2, key + d);
                            at(0, key + d) += ds * at(2, q + d);
                            at(0, val + d) += dv * at(1, o + d);
                        }
                    }
                }
    }
    void attention_cached() {
        const AttentionAttrs& a = c.attrs.attention;
        const int64_t k = a.head_size, g_count = a.kv_heads, t_count = c.shape[0].dim[1];
        const int64_t width = c.shape[3].last(), cache = c.shape[1].dim[1];
        const auto place = [&](int64_t b, int64_t p, int64_t g, int64_t d) {
            return ((b * cache + p) * g_count + g) * k + d;
        };
        const auto sequence = [&](int64_t b) {
            return c.shape[5].rank > 0 ? static_cast<int64_t>(index(5, b)) : b;
        };
        for (int64_t n = 0; n < c.shape[0].rows(); ++n)
            for (int64_t i = 0; index(4, n) >= 0 && i < g_count * k; ++i) {
                const int64_t to = place(sequence(n / t_count), index(4, n), 0, i);
                at(1, to) = at(3, n * width + a.heads * k + i);
                at(2, to) = at(3, n * width + (a.heads + g_count) * k + i);
            }
        for (int64_t n = 0; n < c.shape[0].rows(); ++n)
            for (int64_t h = 0; h < a.heads; ++h) {
                T* o = &at(0, (n * a.heads + h) * k);
                std::fill(o, o + k, T(0));
                if (index(4, n) < 0) continue;
                const int64_t b = sequence(n / t_count), g = h / (a.heads / g_count);
                attend(
                    &at(3, n * width + h * k), 0, index(4, n) + 1,
                    [&](int64_t j, int64_t d) { return at(1, place(b, j, g, d)); },
                    [&](int64_t j, int64_t d) { return at(2, place(b, j, g, d)); }, o);
            }
    }

    // first: position of x among the operands; dx and dw stand at 1 and 2 in the backward op.
    void head_loss(int first, bool backward) {
        const int64_t d_count = c.shape[first].last(), v_count = c.shape[first + 1].dim[0];
        if (backward) std::fill(v[1].begin(), v[1].end(), T(0));
        const int scale = first + 4;
        std::vector<T> logits(static_cast<size_t>(v_count));
        for (int64_t n = 0; n < c.shape[first].rows(); ++n) {
            const T weight = at(first + 3, n);
            if (value_of(weight) == 0) continue;
            double max = -1e300;
            for (int64_t j = 0; j < v_count; ++j) {
                T x = 0;
                for (int64_t d = 0; d < d_count; ++d)
                    x += at(first, n * d_count + d) * at(first + 1, j * d_count + d);
                logits[static_cast<size_t>(j)] = x;
                max = std::max(max, value_of(x));
            }
            T sum = 0;
            for (const T& x : logits) sum += exp(x - T(max));
            const int64_t target = index(first + 2, n);
            at(0, 0) += weight * (log(sum) - (logits[static_cast<size_t>(target)] - T(max)));
            if (!backward) continue;
            for (int64_t j = 0; j < v_count; ++j) {
                T g = exp(logits[static_cast<size_t>(j)] - T(max)) / sum;
                if (j == target) g = g - T(1);
                g = g * weight * T(s.inverse_weight_sum);
                if (has(scale)) g = g * at(scale, 0);
                g = stored(g);
                for (int64_t d = 0; d < d_count; ++d) {
                    at(1, n * d_count + d) += g * at(4, j * d_count + d);
                    if (has(2)) at(2, j * d_count + d) += g * at(3, n * d_count + d);
                }
            }
        }
    }

    void select_rows() {
        const int64_t t_count = c.shape[1].dim[1], d = c.shape[0].last();
        for (int64_t b = 0; b < c.shape[0].dim[0]; ++b)
            for (int64_t i = 0; i < d; ++i)
                at(0, b * d + i) = at(1, (b * t_count + index(2, b)) * d + i);
    }
    void fold() {
        const bool copy = c.attrs.state.copy_first != 0 && c.micro_batch == 0;
        for (size_t i = 0; i < v[0].size(); ++i) {
            v[0][i] = copy ? v[1][i] : v[0][i] + v[1][i];
            v[1][i] = 0;
        }
    }
    void adamw() {
        using O = AdamwOperands;
        auto &w = v[O::w], &grad = v[O::g], &m1 = v[O::m], &m2 = v[O::v];
        const T scale = T(v[O::clip][0]);
        for (size_t i = 0; i < w.size(); ++i) {
            const T g = grad[i] * scale;
            const T decay = c.attrs.state.decay != 0 ? s.weight_decay : 0.0;
            grad[i] = 0;
            w[i] = w[i] * (T(1) - T(s.lr) * decay);
            m1[i] = m1[i] + T(1 - s.beta1) * (g - m1[i]);
            m2[i] = T(s.beta2) * m2[i] + T(1 - s.beta2) * g * g;
            const T root = sqrt(m2[i]) / T(std::sqrt(s.bias_correction2)) + T(s.eps);
            w[i] = w[i] - T(s.lr / s.bias_correction1) * m1[i] / root;
        }
    }

    void run() {
        using K = OpKind;
        switch (c.kind) {
            case K::embed:
                return embed();
            case K::embed_backward:
                return embed_backward();
            case K::norm:
                return norm();
            case K::norm_backward:
                return norm_backward();
            case K::matmul:
                return matmul();
            case K::matmul_dx:
                return matmul_dx();
            case K::matmul_dw:
                return matmul_dw();
            case K::gelu:
                return gelu();
            case K::gelu_backward:
                return gelu_backward();
            case K::swiglu:
                return swiglu();
            case K::swiglu_backward:
                return swiglu_backward();
            case K::rope:
                return rope();
            case K::attention:
                return attention();
            case K::attention_backward:
                return attention_backward();
            case K::attention_cached:
                return attention_cached();
            case K::head_loss:
                return head_loss(1, false);
            case K::head_loss_backward:
                return head_loss(3, true);
            case K::select_rows:
                return select_rows();
            case K::add:
                for (size_t i = 0; i < v[0].size(); ++i) v[0][i] += v[1][i];
                return;
            case K::fold:
                return fold();
            case K::adamw:
                return adamw();
            default:
                check_failed(__FILE__, __LINE__, "reference", "tested by itself");
        }
    }
};

template <typename T>
void run_reference(const KernelCase& c, const StepScalars& scalars, Operands<T>* operands,
                   bool rounds_weights = false) {
    Reference<T>{c, scalars, *operands, rounds_weights}.run();
}

// Whether the kernel does what op.h allows: those of a GPU on tensor-core tiles, which take heads
// of up to 256 (attention_tiles.h) and, with a cache, more tokens of a row than a decode has.
inline bool rounds_weights(const KernelCase& c, Isa isa) {
    const bool cached = c.kind == OpKind::attention_cached;
    if (c.kind != OpKind::attention && c.kind != OpKind::attention_backward && !cached)
        return false;
    return is_cuda(isa) && is_half(c.value_dtype) && c.attrs.attention.head_size <= 256 &&
           (!cached || c.shape[0].dim[1] > cuda::kDecodeTokens);
}

}  // namespace plumb::testing
