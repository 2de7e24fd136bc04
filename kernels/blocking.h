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
// of B in L3, shared by the team. Panels are made of 32-bit words: `step` numbers along K take
// `step_words` of them.
struct GemmBlocking {
    int64_t mr;
    int64_t nr;
    int64_t kc;
    int64_t mc;
    int64_t nc;
    int64_t step = 1;
    int64_t step_words = 1;
};

constexpr GemmBlocking kGemmBlocking[kCpuIsaCount] = {
    {4, 8, 256, 128, 3072},    // portable: 8 of 16 registers accumulate
    {6, 16, 256, 192, 3072},   // avx2: 12 of 16
    {12, 32, 256, 384, 3072},  // avx512: 24 of 32
    {12, 32, 256, 384, 3072},  // avx512_bf16
};

// Where a 16-bit result takes more than one block of K, its fp32 sums stand in scratch for this
// many rows and columns at once (4.5 MiB); the rows are a multiple of every mr.
constexpr int64_t kGemmSumRows = 1152;
constexpr int64_t kGemmSumColumns = 1024;

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

// Blocks for matrices of a dtype. The bits of a product of bf16 are the same for all instruction
// sets, so all have the same kc and take K in pairs: as one word where pairs are multiplied, as two
// fp32 words elsewhere. kc is larger where words are half as many.
PLUMB_BLOCKING GemmBlocking gemm_blocking(Isa isa, Dtype dtype) {
    GemmBlocking block = kGemmBlocking[static_cast<int>(isa)];
    if (dtype != Dtype::bf16) return block;
    block.kc = 512;
    block.step = 2;
    block.step_words = isa == Isa::avx512_bf16 ? 1 : 2;
    return block;
}

struct GemmSize {
    int64_t m;
    int64_t n;
    int64_t k;
    bool narrow;  // the result has 16 bits
};
// Where what stands in scratch, in words, and how much of c one round over K makes.
struct GemmLayout {
    int64_t rows;
    int64_t columns;
    int64_t b_words;     // shared block of B
    int64_t a_words;     // block of A of one thread
    int64_t sums_words;  // fp32 sums of rows x columns, tile by tile; 0 where c itself holds them
};
PLUMB_BLOCKING int64_t gemm_words(const GemmBlocking& block, int64_t depth) {
    return (depth + block.step - 1) / block.step * block.step_words;
}
PLUMB_BLOCKING GemmLayout gemm_layout(const GemmBlocking& block, const GemmSize& size) {
    const bool sums = size.narrow && size.k > block.kc;
    const int64_t rows = sums ? lesser(size.m, kGemmSumRows) : size.m;
    const int64_t columns = sums ? lesser(block.nc, kGemmSumColumns) : block.nc;
    const int64_t words = gemm_words(block, lesser(block.kc, size.k));
    const int64_t panel_rows = round_up_to(rows, block.mr);
    const int64_t panel_columns = lesser(columns, round_up_to(size.n, block.nr));
    return {rows, columns, round_up_to(words * panel_columns, kLanesMax),
            round_up_to(words * lesser(block.mc, panel_rows), kLanesMax),
            sums ? panel_rows * panel_columns : 0};
}
PLUMB_BLOCKING int64_t gemm_scratch_words(const GemmBlocking& block, const GemmSize& size,
                                          int64_t threads) {
    const GemmLayout layout = gemm_layout(block, size);
    return layout.b_words + threads * layout.a_words + layout.sums_words;
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

// Logits of one chunk (which become their gradients), then the loss of each of its tokens (fp64),
// then the matmuls' scratch.
PLUMB_BLOCKING int64_t head_loss_logits_floats(int64_t chunk, int64_t vocabulary) {
    return round_up_to(chunk * vocabulary, kLanesMax);
}
PLUMB_BLOCKING int64_t head_loss_rows_floats(int64_t chunk) {
    return round_up_to(2 * chunk, kLanesMax);
}
struct HeadLossSize {
    int64_t chunk;
    int64_t hidden;
    int64_t vocabulary;
    bool backward;
    bool narrow;  // values have 16 bits
};
PLUMB_BLOCKING int64_t head_loss_scratch_floats(const GemmBlocking& block, const HeadLossSize& size,
                                                int64_t threads) {
    const int64_t chunk = size.chunk, hidden = size.hidden, vocabulary = size.vocabulary;
    int64_t gemm = gemm_scratch_words(block, {chunk, vocabulary, hidden, false}, threads);
    if (size.backward) {
        gemm = greater(
            gemm, gemm_scratch_words(block, {chunk, hidden, vocabulary, size.narrow}, threads));
        gemm =
            greater(gemm, gemm_scratch_words(block, {vocabulary, hidden, chunk, false}, threads));
    }
    return head_loss_logits_floats(chunk, vocabulary) + head_loss_rows_floats(chunk) + gemm;
}

// The weights (fp64) of a vocabulary for each row that is sampled at the same time.
PLUMB_BLOCKING int64_t sample_row_floats(int64_t vocabulary) {
    return round_up_to(2 * vocabulary, kLanesMax);
}
PLUMB_BLOCKING int64_t sample_scratch_floats(int64_t rows, int64_t vocabulary, int64_t threads) {
    return lesser(rows, threads) * sample_row_floats(vocabulary);
}

#undef PLUMB_BLOCKING

}  // namespace plumb
