// Block sizes of the CPU kernels and the layout of their scratch, shared by the kernels (one
// instruction set per compilation) and the traits (any instruction set). They depend on the
// instruction set only, never on the machine or its thread count, so that the bits of a result do
// not either. Everything has internal linkage: nothing here may be shared between objects that
// were compiled for different instruction sets.
// Path: hot.
#pragma once

#include "runtime/program/kernel_traits.h"

namespace plumb {

// Goto & van de Geijn 2008, "Anatomy of high-performance matrix multiplication": a mr x nr tile of
// the result in registers; a kc x nr panel of B in L1; a mc x kc block of A in L2; a kc x nc block
// of B in L3, shared by the team.
struct GemmBlocking {
    int64_t mr;
    int64_t nr;
    int64_t kc;
    int64_t mc;
    int64_t nc;
};

constexpr GemmBlocking kGemmBlocking[kIsaCount] = {
    {4, 8, 256, 128, 3072},    // portable: 8 of 16 registers accumulate
    {6, 16, 256, 192, 3072},   // avx2: 12 of 16
    {12, 32, 256, 384, 3072},  // avx512: 24 of 32
};

// Rows up to which x * w^T streams w once by dot products instead of packing it.
constexpr int64_t kMatmulStreamRows = 8;

constexpr int64_t kAttentionQueryBlock = 64;
constexpr int64_t kAttentionKeyBlock = 64;
// Queries per sequence up to which cached attention goes query by query (decode).
constexpr int64_t kAttentionStreamQueries = 4;
// Longest vector of any instruction set, in floats: padding of rows in scratch.
constexpr int64_t kLanesMax = 16;
// Rows whose gradient to gamma and beta is summed before the sums of blocks are added.
constexpr int64_t kNormRowBlock = 32;

#define PLUMB_BLOCKING static constexpr __attribute__((always_inline, unused))

PLUMB_BLOCKING int64_t round_up_to(int64_t value, int64_t multiple) {
    return (value + multiple - 1) / multiple * multiple;
}
PLUMB_BLOCKING int64_t lesser(int64_t a, int64_t b) {
    return a < b ? a : b;
}
PLUMB_BLOCKING int64_t greater(int64_t a, int64_t b) {
    return a > b ? a : b;
}

// Floats of the shared block of B, and of one thread's block of A.
PLUMB_BLOCKING int64_t gemm_b_floats(const GemmBlocking& block, int64_t n, int64_t k) {
    return round_up_to(lesser(block.kc, k) * lesser(block.nc, round_up_to(n, block.nr)), kLanesMax);
}
PLUMB_BLOCKING int64_t gemm_a_floats(const GemmBlocking& block, int64_t m, int64_t k) {
    return round_up_to(lesser(block.kc, k) * lesser(block.mc, round_up_to(m, block.mr)), kLanesMax);
}
PLUMB_BLOCKING int64_t gemm_scratch_floats(const GemmBlocking& block, int64_t m, int64_t n,
                                           int64_t k, int64_t threads) {
    return gemm_b_floats(block, n, k) + threads * gemm_a_floats(block, m, k);
}

// One thread's scratch. Forward: transposed queries, scores, transposed output, and four rows of
// per-query numbers; of narrow (16-bit) values also a block of widened keys or values.
PLUMB_BLOCKING int64_t attention_scratch_floats(int64_t head_size, bool narrow) {
    return kAttentionQueryBlock * (2 * head_size + kAttentionKeyBlock + 4) +
           (narrow ? kAttentionKeyBlock * round_up_to(head_size, kLanesMax) : 0);
}
// One thread's scratch: as above, or the output of a query that goes alone where it is narrow.
PLUMB_BLOCKING int64_t attention_cached_scratch_floats(int64_t head_size, int64_t queries,
                                                       bool narrow) {
    if (queries > kAttentionStreamQueries) return attention_scratch_floats(head_size, narrow);
    return narrow ? round_up_to(head_size, kLanesMax) : 0;
}
// One thread's blocks. Transposed q, do, dq; padded q, do; scores, their gradients; rows; of narrow
// values also widened keys and values.
PLUMB_BLOCKING int64_t attention_backward_block_floats(int64_t head_size, bool narrow) {
    const int64_t padded = round_up_to(head_size, kLanesMax);
    return kAttentionQueryBlock * (3 * head_size + 2 * padded + 2 * kAttentionKeyBlock + 4) +
           (narrow ? 2 * kAttentionKeyBlock * padded : 0);
}
// One thread's scratch: its blocks, and fp32 sums of narrow dk and dv of one head of a sequence.
PLUMB_BLOCKING int64_t attention_backward_scratch_floats(int64_t head_size, int64_t tokens,
                                                         bool narrow) {
    return attention_backward_block_floats(head_size, narrow) +
           (narrow ? round_up_to(2 * tokens * head_size, kLanesMax) : 0);
}

// Partial sums of dgamma and dbeta per block of rows.
PLUMB_BLOCKING int64_t norm_backward_scratch_floats(int64_t rows, int64_t size) {
    return (rows + kNormRowBlock - 1) / kNormRowBlock * 2 * size;
}

// Inverse frequencies (fp64, shared), then one thread's cosines and sines.
PLUMB_BLOCKING int64_t rope_frequency_floats(int64_t head_size) {
    return round_up_to(head_size, kLanesMax);
}
PLUMB_BLOCKING int64_t rope_scratch_floats(int64_t head_size, int64_t threads) {
    return rope_frequency_floats(head_size) + threads * round_up_to(head_size, kLanesMax);
}

// Logits of one chunk, then the loss of each of its tokens (fp64), then the matmuls' scratch.
PLUMB_BLOCKING int64_t head_loss_logits_floats(int64_t chunk, int64_t vocabulary) {
    return round_up_to(chunk * vocabulary, kLanesMax);
}
PLUMB_BLOCKING int64_t head_loss_rows_floats(int64_t chunk) {
    return round_up_to(2 * chunk, kLanesMax);
}
PLUMB_BLOCKING int64_t head_loss_scratch_floats(const GemmBlocking& block, int64_t chunk,
                                                int64_t hidden, int64_t vocabulary, int64_t threads,
                                                bool backward) {
    int64_t gemm = gemm_scratch_floats(block, chunk, vocabulary, hidden, threads);
    if (backward) {
        gemm = greater(gemm, gemm_scratch_floats(block, chunk, hidden, vocabulary, threads));
        gemm = greater(gemm, gemm_scratch_floats(block, vocabulary, hidden, chunk, threads));
    }
    return head_loss_logits_floats(chunk, vocabulary) + head_loss_rows_floats(chunk) + gemm;
}

#undef PLUMB_BLOCKING

}  // namespace plumb
