#include "runtime/engine/data_loader.h"

#include <algorithm>
#include <limits>

#include "runtime/base/check.h"
#include "runtime/base/error.h"
#include "runtime/base/random.h"

namespace plumb {

DataLoader::DataLoader(const TokenFile& tokens, int64_t sequence_length, DataOrder order,
                       uint64_t seed)
    : tokens_(tokens),
      sequence_length_(sequence_length),
      sequence_count_(0),
      order_(order),
      key_(random_key(seed, "data")) {
    CHECK(sequence_length > 0 && sequence_length < std::numeric_limits<int32_t>::max());
    if (tokens.count() - 1 < sequence_length)
        throw Error(ExitCode::bad_input, tokens.path() + " has " + std::to_string(tokens.count()) +
                                             " tokens; a sequence of length " +
                                             std::to_string(sequence_length) + " needs at least " +
                                             std::to_string(sequence_length + 1));
    sequence_count_ = (tokens.count() - 1) / sequence_length;
}

int64_t DataLoader::sequence_at(int64_t index) const noexcept {
    CHECK(index >= 0);
    if (order_ == DataOrder::sequential) return index < sequence_count_ ? index : -1;
    const int64_t epoch = index / sequence_count_;
    const Philox4 r = philox(key_, static_cast<uint64_t>(epoch), 0);
    const uint64_t epoch_key = uint64_t{r.word[1]} << 32 | r.word[0];
    return random_permute(epoch_key, index % sequence_count_, sequence_count_);
}

int64_t DataLoader::fill(int64_t index, const SequencePlace& place) const noexcept {
    const int64_t length = sequence_length_;
    for (int64_t t = 0; t < length; ++t) place.positions[t] = static_cast<int32_t>(t);
    std::fill_n(place.segment_start, length, 0);
    const int64_t sequence = sequence_at(index);
    std::fill_n(place.loss_weights, length, sequence < 0 ? 0.0f : 1.0f);
    if (sequence < 0) {
        std::fill_n(place.tokens, length, 0);
        std::fill_n(place.targets, length, 0);
        return 0;
    }
    tokens_.read(sequence * length, length, place.tokens);
    tokens_.read(sequence * length + 1, length, place.targets);
    // The next sequence comes from disk while this one is computed.
    const int64_t next = sequence_at(index + 1);
    if (next >= 0) tokens_.will_need(next * length, length + 1);
    return length;
}

}  // namespace plumb
