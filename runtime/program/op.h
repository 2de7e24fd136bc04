// The vocabulary of operations as plain data: kinds, their attributes, their operand positions.
// An Op is a row of a program: outputs first, then inputs, each the index of a Tensor or
// kNoTensor where an optional operand is absent. What an op means stands beside its operand list
// below; its rules (shape, cost, gradient) stand in op_table.h and rules_<family>.cpp; its kernels
// are found by the same kind.
//
// Access of an operand: `write` sets every element, `update` reads and writes (accumulates),
// `read` only reads. Gradients of parameters always accumulate (update): whoever consumes a
// gradient zeroes it, so a gradient buffer is zero between uses.
//
// An op has one *value dtype* (Op::dtype: f32, bf16 or f16), that of its activations and matrices;
// which operands have it stands in the op table. All else has one dtype always: statistics, lse,
// loss, gradients of parameters, moments and 1-D parameters are f32. Whatever the value dtype,
// arithmetic is fp32: values are widened when read and rounded once when written.
// Path: hot.
#pragma once

#include "runtime/base/dtype.h"
#include "runtime/base/types.h"
#include "runtime/base/view.h"

namespace plumb {

using TensorId = int32_t;
inline constexpr TensorId kNoTensor = -1;

enum class OpKind : uint8_t {
    // embedding
    embed,
    embed_backward,
    // norm
    norm,
    norm_backward,
    // matmul
    matmul,
    matmul_dx,
    matmul_dw,
    // activation
    gelu,
    gelu_backward,
    swiglu,
    swiglu_backward,
    // attention
    rope,
    attention,
    attention_backward,
    attention_cached,
    // loss and sampling
    head_loss,
    head_loss_backward,
    select_rows,
    sample,
    // gradients and optimizer
    add,
    fold,
    grad_norm,
    clip,
    adamw,
    loss_scale,
    // state
    init,
    zero,
    digest,
    checkpoint_write,
    checkpoint_read,
    count,
};
inline constexpr int kOpKindCount = static_cast<int>(OpKind::count);

// x_BTD[b,t,:] = wte_VD[tokens[b,t],:] (+ wpe_SD[positions[b,t],:]).
// Outputs x. Inputs wte, wpe (optional), tokens_BT i32, positions_BT i32 (absent without wpe).
// A position < 0 is padding and adds no row of wpe.
struct EmbedOperands {
    enum : int { x, wte, wpe, tokens, positions, count };
};
// dwte[tokens[b,t],:] += dx[b,t,:]; dwpe[positions[b,t],:] += dx[b,t,:]. Updates dwte, dwpe
// (optional). Inputs dx_BTD, tokens_BT, positions_BT.
struct EmbedBackwardOperands {
    enum : int { dwte, dwpe, dx, tokens, positions, count };
};
// LayerNorm (Ba et al. 2016): y = (x - mean) * rstd * gamma + beta, or RMSNorm (Zhang & Sennrich
// 2019): y = x * rstd * gamma; rstd = 1 / sqrt(variance or mean square + eps), over the last dim.
// Outputs y_BTD, stats_BT2 f32 (mean, rstd; mean = 0 for RMSNorm; optional). Inputs x, gamma_D,
// beta_D (optional; always absent for RMSNorm).
struct NormOperands {
    enum : int { y, stats, x, gamma, beta, count };
};
// dx (+)= gradient of norm to x (adds when attrs.accumulate); dgamma, dbeta accumulate (optional).
// Outputs dx; updates dgamma, dbeta. Inputs dy, x, stats, gamma.
struct NormBackwardOperands {
    enum : int { dx, dgamma, dbeta, dy, x, stats, gamma, count };
};
// y_NO = f(x_NI * w_OI^T + bias_O) + residual_NO; f = identity or GELU (tanh form); with GELU the
// argument of f is rounded to the value dtype and stored in pre_NO when present. x, y, pre,
// residual may have more leading dims. Outputs y (f32 when attrs.wide), pre (optional). Inputs x,
// w, bias f32 (optional), residual (optional).
struct MatmulOperands {
    enum : int { y, pre, x, w, bias, residual, count };
};
// dx_NI (+)= dy_NO * w_OI (adds when attrs.accumulate). Outputs dx. Inputs dy, w.
struct MatmulDxOperands {
    enum : int { dx, dy, w, count };
};
// dw_OI += dy_NO^T * x_NI; dbias_O += column sums of dy. Updates dw (optional), dbias (optional).
struct MatmulDwOperands {
    enum : int { dw, dbias, dy, x, count };
};
// y = GELU(x) (tanh form), the bits of matmul's epilogue. Outputs y. Inputs x (same shape).
struct GeluOperands {
    enum : int { y, x, count };
};
// d *= gelu'(pre), in place. Updates d. Inputs pre (same shape).
struct GeluBackwardOperands {
    enum : int { d, pre, count };
};
// h_NF = silu(gate_up[:, :F]) * gate_up[:, F:] (SwiGLU, Shazeer 2020). Inputs gate_up_N(2F).
struct SwigluOperands {
    enum : int { h, gate_up, count };
};
struct SwigluBackwardOperands {
    enum : int { dgate_up, dh, gate_up, count };
};
// Rotary embedding (Su et al. 2021) in place on the q and k parts of qkv_BT((H+2G)K), pairs
// (i, i + K/2) as in HF Llama; attrs.inverse rotates back (its own gradient).
// Updates qkv. Inputs positions_BT.
struct RopeOperands {
    enum : int { qkv, positions, count };
};
// Causal attention with grouped queries over segments: token t of a sequence sees tokens
// segment_start[t] .. t of the same sequence. Streaming softmax (Dao et al. 2022): no TxT buffer.
// Outputs o_BT(HK), lse_BHT f32 (log-sum-exp of scaled scores; optional). Inputs
// qkv_BT((H+2G)K) laid q heads, k heads, v heads; segment_start_BT i32.
// Of a 16-bit value dtype a kernel may round probabilities, divided by their sum or not yet, to the
// precision of that dtype, once and to nearest, where they enter the product with v, whose sums are
// fp32. Scores, their maximum, the sum of probabilities (not rounded) and lse are fp32.
struct AttentionOperands {
    enum : int { o, lse, qkv, segment_start, count };
};
// Outputs dqkv (every element set). Inputs d_o, qkv, o, lse, segment_start. Probabilities p and
// gradients of scores, p (d_o . v - d_o . o) with p not rounded, may be rounded in the same way
// where they enter the products that give dqkv; all else is fp32.
struct AttentionBackwardOperands {
    enum : int { dqkv, d_o, qkv, o, lse, segment_start, count };
};
// Writes k and v of each token into the cache at its position, then attends over positions
// 0..position of its sequence. Tokens with position < 0 are padding: nothing stored, o = 0.
// Row b of the input is sequence sequences[b] of the cache; b itself where the operand is absent.
// Probabilities may be rounded as in attention.
// Outputs o_BT(HK). Updates k_cache_NSGK, v_cache_NSGK (N sequences of S positions). Inputs
// qkv_BT((H+2G)K), positions_BT i32, sequences_B i32 (optional).
struct AttentionCachedOperands {
    enum : int { o, k_cache, v_cache, qkv, positions, sequences, count };
};
// loss += sum over tokens of loss_weight * cross-entropy(x_ND * w_VD^T, target), in chunks of
// attrs.chunk tokens: full logits never exist. Updates loss_1 f64 (sum over the micro-batches of a
// step, unnormalised). Inputs x_BTD, w_VD, targets_BT i32, loss_weights_BT f32.
// A target outside [0, V) with weight 0 is ignored. loss_scale_2 f32 (optional) is for its
// gradient.
struct HeadLossOperands {
    enum : int { loss, x, w, targets, loss_weights, loss_scale, count };
};
// The same, and in the same pass over the chunks dx_BTD = gradient and dw_VD += gradient of
// loss * scalars.inverse_weight_sum (* loss_scale_2[0] when present). Updates loss, dw (optional).
// Outputs dx. The gradients of the logits are rounded to the value dtype.
struct HeadLossBackwardOperands {
    enum : int { loss, dx, dw, x, w, targets, loss_weights, loss_scale, count };
};
// y_BD[b,:] = x_BTD[b, rows[b], :]. Inputs x, rows_B i32.
struct SelectRowsOperands {
    enum : int { y, x, rows, count };
};
// Next token of each row, in the order of Hugging Face's logits processors; of equal logits the one
// of lowest index comes first everywhere:
// 1. repetition penalty (Keskar et al. 2019): logits of seen tokens are divided by it where they
//    are above 0, multiplied where not, in fp32;
// 2. temperature: 0 takes the largest logit, and nothing below matters;
// 3. top-k (Fan et al. 2018): the k largest stay; all when k is 0 or at least V;
// 4. top-p (Holtzman et al. 2019): of these the fewest of largest probability whose sum reaches p,
//    at least one; all when p >= 1.
// The token is drawn from softmax(logits / temperature) over what stays, in fp64 and in order of
// the tokens, with random_uniform(key, number) where draws[n] = {key, number}.
// Row b of logits belongs to sequence n = sequences[b]; b itself where the operand is absent.
// Outputs token_B i32. Inputs logits_BV, seen_NV u8 (1: in the sequence so far), draws_N2 i64,
// sequences_B i32 (optional).
struct SampleOperands {
    enum : int { token, logits, seen, draws, sequences, count };
};
// a += b. Updates a.
struct AddOperands {
    enum : int { a, b, count };
};
// total = (attrs.copy_first && micro_batch == 0) ? part : total + part; part = 0. Updates both.
struct FoldOperands {
    enum : int { total, part, count };
};
// Adds the squares of g to a 128-bit fixed-point sum: each square, exact in fp64, truncated to a
// multiple of 2^-80; sum_4 i64 = {low, high, flag, 0}; flag != 0 after overflow, inf or NaN.
// attrs.begin: the sum starts at zero. Integer addition commutes: any order gives the same bits.
struct GradNormOperands {
    enum : int { sum, g, count };
};
// clip_4 f64 = {scale, norm, finite (1 or 0), steps not finite so far}: norm = sqrt(sum * 2^-80) /
// loss_scale_2[0]; scale = min(1, scalars.clip / norm) / loss_scale_2[0] (1 / loss scale when clip
// <= 0). The loss scale is 1 when absent. Updates clip_4. Inputs sum_4 i64, loss_scale (optional).
struct ClipOperands {
    enum : int { clip, sum, loss_scale, count };
};
// AdamW with decoupled weight decay (Loshchilov & Hutter 2019) over a flat piece; PyTorch's order
// of operations: w *= 1 - lr*decay; m, v moments of g*scale; w -= lr/(1-beta1^t) * m /
// (sqrt(v)/sqrt(1-beta2^t) + eps); t counts the steps that were not skipped. Always sets g to zero;
// changes nothing else when clip.finite == 0. Updates w, master, g, m, v (same flat shape). Inputs
// clip_4 f64. The weight that is updated is the fp32 master. f32: w itself, no master. bf16: the
// pair of w and master u16 (split_master in dtype.h). f16: master f32, of which w is the rounding.
// The master gets the same bits whatever the value dtype. One that w cannot hold (0x1.ffp127 and
// more in bf16, 65520 and more in f16) makes w infinite and stays exact itself: it is not clamped,
// which would hide that training diverged, but makes the next steps non-finite, and those are
// skipped and shown.
struct AdamwOperands {
    enum : int { w, master, g, m, v, clip, count };
};
// Dynamic loss scaling (Micikevicius et al. 2018). state_2 f32 = {scale, finite steps since it
// changed}: not finite: scale = max(1, scale / 2), count = 0; otherwise after
// scalars.loss_scale_window finite steps scale = min(2^24, scale * 2), count = 0. Updates state.
// Inputs clip_4 f64.
struct LossScaleOperands {
    enum : int { state, clip, count };
};
// The fp32 master (as in adamw) = std * normal(key, attrs.first + i), or the constant attrs.value
// when std == 0. Outputs w, master.
struct InitOperands {
    enum : int { w, master, count };
};
struct ZeroOperands {
    enum : int { t, count };
};
// digest_2 i64 += digest_elements(attrs.key, attrs.first, t), t f32, or the fp32 masters of the
// pair (t bf16, low u16). attrs.begin: starts at zero.
struct DigestOperands {
    enum : int { digest, t, low, count };
};
// Host ops, run by the engine between executor runs; here so that their staging is planned: raw
// chunk (reading; writing what lies on a GPU), byte planes, stored chunk, codec context, chunk
// index (writing only), passage to a GPU (reading for one). Updates all of them.
struct CheckpointOperands {
    enum : int { raw, planes, stored, context, index, passage, count };
};

inline constexpr int kMaxOperands = 8;

// The value dtypes, and the columns of a kernel table.
inline constexpr int kValueDtypeCount = 3;
constexpr int value_index(Dtype dtype) {
    return dtype == Dtype::bf16 ? 1 : dtype == Dtype::f16 ? 2 : 0;
}

enum class NormKind : int32_t { layer, rms };
enum class Activation : int32_t { none, gelu_tanh };

struct NormAttrs {
    double eps;
    NormKind kind;
    int32_t accumulate;
};
struct MatmulAttrs {
    Activation activation;
    int32_t accumulate;
    int32_t wide;    // y is f32 whatever the value dtype: logits to sample from
    int32_t by_row;  // the bits of a row of y depend on no other row, nor on how many there are
};
struct AttentionAttrs {
    double scale;       // multiplies q.k; 1 / sqrt(K)
    double rope_theta;  // rope only
    int32_t heads;      // H
    int32_t kv_heads;   // G
    int32_t head_size;  // K
    int32_t inverse;    // rope only
};
struct LossAttrs {
    int64_t chunk;  // tokens whose logits exist at once
};
struct StateAttrs {
    uint64_t key;
    int64_t first;  // global index of the first element
    double std;
    double value;
    int32_t begin;
    int32_t copy_first;
    int32_t decay;
    int32_t reserved;
};

// Zeroed on construction: equal attributes have equal bytes, so programs can be hashed.
union Attrs {
    unsigned char bytes[48];
    NormAttrs norm;
    MatmulAttrs matmul;
    AttentionAttrs attention;
    LossAttrs loss;
    StateAttrs state;
    Attrs() : bytes{} {}
};
static_assert(sizeof(Attrs) == 48);

// Lanes run concurrently where the backend can (streams on CUDA); `host` marks ops of the engine.
enum class Lane : uint8_t { compute, copy, host };

struct Op {
    OpKind kind = OpKind::count;
    Lane lane = Lane::compute;
    Dtype dtype = Dtype::f32;  // of the value operands
    int16_t operand_count = 0;
    TensorId operand[kMaxOperands] = {-1, -1, -1, -1, -1, -1, -1, -1};
    TensorId scratch = kNoTensor;  // private to this op, sized by the kernel's traits
    Attrs attrs;
};

// The numbers of one step that are not known when the program is bound. They live at one fixed
// address (the head of the io arena), so that a captured graph can be replayed.
struct StepScalars {
    double lr;
    double beta1;
    double beta2;
    double eps;
    double weight_decay;
    double clip;              // maximum global norm; <= 0: no clipping
    double bias_correction1;  // 1 - beta1^t
    double bias_correction2;  // 1 - beta2^t
    // A host that is one step ahead of a GPU does not know yet whether the step before is skipped:
    // when more than these were (clip_4[3]), the corrections are the other two.
    double skipped_steps;
    double bias_correction1_skipped;
    double bias_correction2_skipped;
    double inverse_weight_sum;  // 1 / sum of loss weights over the whole step
    double loss_scale_window;   // finite steps after which the loss scale doubles
    // Of sampling; what they mean stands at SampleOperands.
    double temperature;
    double top_p;
    double repetition_penalty;  // 1: none
    int64_t top_k;
};

}  // namespace plumb
