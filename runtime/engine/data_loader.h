// Cuts a token file into training sequences. Sequence k of a file is the window of T + 1 tokens
// that starts at k * T: T inputs and, one token later, T targets. Which sequence is the i-th is a
// pure function of (seed, i): every epoch is a keyed permutation of all sequences, so a run resumes
// from the count of sequences consumed and no random state exists.
// Path: hot.
#pragma once

#include "formats/tokens.h"
#include "runtime/base/types.h"

namespace plumb {

// Where one sequence goes: its T places in a micro-batch's io row.
struct SequencePlace {
    int32_t* tokens;
    int32_t* targets;
    float* loss_weights;
    int32_t* positions;
    int32_t* segment_start;
};

enum class DataOrder : uint8_t {
    shuffled,    // training: a permutation per epoch, epochs without end
    sequential,  // evaluation: the file's order once, then padding of weight 0
};

class DataLoader {
  public:
    // `tokens` must outlive the loader. Throws Error when the file is shorter than T + 1 tokens.
    DataLoader(const TokenFile& tokens, int64_t sequence_length, DataOrder order, uint64_t seed);

    // Sequences in the file (per epoch): (token count - 1) / T.
    int64_t sequence_count() const { return sequence_count_; }
    int64_t sequence_length() const { return sequence_length_; }

    // Which sequence of the file is the index-th since the start of training (or of the
    // evaluation); -1 for padding.
    int64_t sequence_at(int64_t index) const noexcept;

    // Writes that sequence and returns the sum of its loss weights: T, or 0 for padding.
    int64_t fill(int64_t index, const SequencePlace& place) const noexcept;

  private:
    const TokenFile& tokens_;
    int64_t sequence_length_;
    int64_t sequence_count_;
    DataOrder order_;
    uint64_t key_;
};

}  // namespace plumb
