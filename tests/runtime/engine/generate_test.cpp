// Generation of the golden models: logits against PyTorch, the cache against full prefill, and what
// greedy and seeded sampling promise.
#include "runtime/engine/generate.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <memory>

#include "runtime/exec/seal.h"
#include "tests/runtime/engine/golden_session.h"

namespace plumb {
namespace {

using Logits = std::vector<float>;

class GenerateTest : public testing::TestWithParam<const char*> {
  protected:
    std::unique_ptr<Session> make_session(int64_t prefill_chunk, int32_t threads = 1,
                                          int64_t batch = 1,
                                          ComputeDtype dtype = ComputeDtype::fp32) {
        GoldenRun run;
        run.dtype = dtype;
        run.threads = threads;
        RunConfig config = golden_config(golden_, run);
        config.run.generate.prefill_chunk = prefill_chunk;
        config.run.generate.batch = batch;
        auto session = std::make_unique<Session>(config, Purpose::generate);
        set_golden_weights(*session);
        return session;
    }

    std::vector<int32_t> prompt(int64_t count) const {
        std::vector<int32_t> tokens;
        for (int64_t i = 0; i < count; ++i)
            tokens.push_back(golden_token(99, i, golden_.vocab_size));
        return tokens;
    }

    Logits logits(const Generator& generator, int64_t sequence = 0) const {
        const float* first = generator.logits(sequence);
        return Logits(first, first + golden_.vocab_size);
    }

    // A sequence by itself: its tokens and the logits of the last one.
    struct Alone {
        std::vector<int32_t> tokens;
        Logits logits;
    };
    Alone alone(Generator& generator, const std::vector<int32_t>& prompt, int64_t count,
                const SamplingSettings& sampling) const {
        Alone made;
        made.tokens = continuation(generator, prompt, count, sampling);
        made.logits = logits(generator);
        return made;
    }

    // Largest difference over the largest reference value.
    template <typename Reference>
    static double difference(const Logits& found, const Reference& reference) {
        double error = 0, largest = 0;
        for (size_t i = 0; i < found.size(); ++i) {
            const auto wanted = static_cast<double>(reference[i]);
            error = std::max(error, std::abs(static_cast<double>(found[i]) - wanted));
            largest = std::max(largest, std::abs(wanted));
        }
        EXPECT_GT(largest, 0.1);
        return error / largest;
    }

    static std::vector<int32_t> continuation(Generator& generator,
                                             const std::vector<int32_t>& prompt, int64_t count,
                                             const SamplingSettings& sampling) {
        std::vector<int32_t> tokens;
        tokens.push_back(
            generator.start(prompt.data(), static_cast<int64_t>(prompt.size()), sampling));
        while (static_cast<int64_t>(tokens.size()) < count) tokens.push_back(generator.next());
        return tokens;
    }

    Golden golden_ = read_golden(GetParam());
};

// bf16 keeps 8 bits of each weight and activation, fp16 11.
TEST_P(GenerateTest, LogitsIn16BitsAreThoseOfPyTorch) {
    for (const auto& [dtype, bound] :
         {std::pair{ComputeDtype::bf16, 2e-2}, std::pair{ComputeDtype::fp16, 5e-3}}) {
        const auto session = make_session(5, 1, 1, dtype);
        Generator generator(*session);
        const GoldenForward& forward = golden_.forward;
        double worst = 0;
        for (int64_t s = 0; s < forward.sequences; ++s) {
            const int64_t first = s * forward.sequence_length;
            for (int64_t n = 1; n <= forward.sequence_length; ++n) {
                generator.start(forward.tokens.data() + first, n, {});
                const double* row = forward.logits.data() + (first + n - 1) * golden_.vocab_size;
                worst = std::max(worst, difference(logits(generator), row));
            }
        }
        EXPECT_LE(worst, bound) << value_dtype_name(
            program_dtype(session->config(), Purpose::generate));
    }
}

TEST_P(GenerateTest, PrefillGivesTheLogitsOfPyTorch) {
    const auto session = make_session(5);
    Generator generator(*session);
    const GoldenForward& forward = golden_.forward;
    ASSERT_LE(forward.sequence_length, generator.context());
    for (int64_t s = 0; s < forward.sequences; ++s) {
        const int64_t first = s * forward.sequence_length;
        for (int64_t n = 1; n <= forward.sequence_length; ++n) {
            const int32_t token = generator.start(forward.tokens.data() + first, n, {});
            const double* row = forward.logits.data() + (first + n - 1) * golden_.vocab_size;
            EXPECT_LE(difference(logits(generator), row), 1e-5) << "sequence " << s << ", " << n;
            const auto best = std::max_element(row, row + golden_.vocab_size) - row;
            EXPECT_EQ(token, best) << "sequence " << s << ", " << n;
        }
    }
}

// After each decoded token the logits are those of a prefill of the whole text so far.
TEST_P(GenerateTest, DecodeWithCacheEqualsFullPrefill) {
    const auto whole_session = make_session(64);
    Generator whole(*whole_session);
    EXPECT_EQ(whole.context(), golden_.config.find("64") == std::string::npos ? 32 : 64);
    for (const int64_t chunk : {1, 3, 8, 64}) {
        const auto session = make_session(chunk);
        Generator generator(*session);
        for (const int64_t count : {1, 2, 3, 4, 7, 8, 9, 16, 17}) {
            std::vector<int32_t> text = prompt(count);
            int32_t token = generator.start(text.data(), count, {});
            for (int step = 0; step < 4; ++step) {
                EXPECT_EQ(generator.position(), static_cast<int64_t>(text.size()));
                const int32_t expected =
                    whole.start(text.data(), static_cast<int64_t>(text.size()), {});
                EXPECT_LE(difference(logits(generator), logits(whole)), 1e-5)
                    << "chunk " << chunk << ", prompt " << count << ", step " << step;
                EXPECT_EQ(token, expected);
                text.push_back(token);
                token = generator.next();
            }
        }
    }
}

// Decoding fills the cache to its last position, from any prompt.
TEST_P(GenerateTest, TheWholeContextIsUsed) {
    const auto session = make_session(7);
    Generator generator(*session);
    const int64_t context = generator.context();
    std::vector<int32_t> text = prompt(1);
    int32_t token = generator.start(text.data(), 1, {});
    while (generator.position() < context) {
        text.push_back(token);
        token = generator.next();
    }
    const Logits decoded = logits(generator);
    EXPECT_EQ(generator.start(text.data(), context, {}), token);
    EXPECT_LE(difference(logits(generator), decoded), 1e-5);
    EXPECT_EQ(generator.position(), context);
    EXPECT_DEATH(generator.next(), "position\\(n\\) < context_");
    EXPECT_DEATH(generator.start(text.data(), context + 1, {}), "count <= context_");
    EXPECT_DEATH(generator.start(text.data(), 0, {}), "count >= 1");
}

TEST_P(GenerateTest, GreedyTextDependsOnThePromptAlone) {
    const auto session = make_session(4);
    Generator generator(*session);
    const std::vector<int32_t> text = continuation(generator, prompt(6), 20, {});
    const Logits last = logits(generator);
    EXPECT_EQ(continuation(generator, prompt(9), 20, {}).size(), 20u);  // leaves a dirty cache
    EXPECT_EQ(continuation(generator, prompt(6), 20, {}), text);
    EXPECT_EQ(logits(generator), last);
    SamplingSettings seeded;
    seeded.seed = 5;
    EXPECT_EQ(continuation(generator, prompt(6), 20, seeded), text) << "temperature 0";
    const auto two_threads = make_session(4, 2);
    Generator other(*two_threads);
    EXPECT_EQ(continuation(other, prompt(6), 20, {}), text);
    EXPECT_EQ(logits(other), last) << "two threads";
}

// Bit for bit: no matter how many sequences the plan has, which row one is in, what the others are,
// when they start and end, and how many threads work.
TEST_P(GenerateTest, ASequenceDependsOnNoOther) {
    SamplingSettings sampling{0.9, 3, 20, 0.9, 1.2};
    for (const auto& [batch, dtype] : {std::pair{2, ComputeDtype::fp32},
                                       {3, ComputeDtype::fp32},
                                       {11, ComputeDtype::fp32},
                                       {2, ComputeDtype::bf16},
                                       {11, ComputeDtype::bf16}}) {
        const auto single = make_session(4, 1, 1, dtype);
        Generator one(*single);
        const auto session = make_session(4, 2, batch, dtype);
        Generator generator(*session);
        ASSERT_EQ(generator.batch(), batch);
        for (const double temperature : {0.0, 0.9}) {
            sampling.temperature = temperature;
            const auto prompt_of = [&](int64_t n) { return prompt(1 + 3 * n % 8); };
            const auto seeded = [&](int64_t n) {
                SamplingSettings own = sampling;
                own.seed += static_cast<uint64_t>(n);
                return own;
            };
            for (int64_t n = 0; n + 1 < batch; ++n) {
                const std::vector<int32_t> text = prompt_of(n);
                generator.start(text.data(), static_cast<int64_t>(text.size()), seeded(n), n);
                EXPECT_EQ(generator.new_count(n), 1);
            }
            for (int step = 1; step < 6; ++step) generator.next();
            // One ends early, the last one starts late.
            generator.stop(0);
            EXPECT_EQ(generator.position(0), -1);
            const std::vector<int32_t> late = prompt(9);
            generator.start(late.data(), 9, seeded(77), batch - 1);
            EXPECT_EQ(logits(generator, batch - 1), alone(one, late, 1, seeded(77)).logits);
            for (int step = 6; step < 12; ++step) generator.next();
            for (int64_t n = 0; n < batch; ++n) {
                const bool last = n + 1 == batch;
                const int64_t count = n == 0 ? 6 : last ? 7 : 12;
                ASSERT_EQ(generator.new_count(n), count);
                const Alone wanted =
                    alone(one, last ? late : prompt_of(n), count, seeded(last ? 77 : n));
                const int32_t* found = generator.new_tokens(n);
                EXPECT_EQ(std::vector<int32_t>(found, found + count), wanted.tokens)
                    << n << " of " << batch << ", temperature " << temperature;
                if (n == 0) continue;
                EXPECT_EQ(logits(generator, n), wanted.logits) << n << " of " << batch;
                EXPECT_EQ(generator.position(n),
                          (last ? 9 : static_cast<int64_t>(prompt_of(n).size())) + count - 1);
            }
        }
    }
}

// Caches, logits and all else that a sequence needs are in the plan once for each.
TEST_P(GenerateTest, ThePlanHasACacheForEachSequence) {
    const auto bytes = [&](int64_t batch, Arena arena) {
        return make_session(4, 1, batch)->plan().arena_bytes[static_cast<int>(arena)];
    };
    // The tensors: zones of the checked build do not grow with the batch.
    const auto cache_bytes = [&](int64_t batch) {
        const auto session = make_session(4, 1, batch);
        int64_t sum = 0;
        for (const Tensor& tensor : session->program().tensors)
            if (tensor.role == Role::kv_cache) sum += tensor.size_bytes;
        EXPECT_GE(session->plan().arena_bytes[static_cast<int>(Arena::kv_cache)], sum);
        return sum;
    };
    EXPECT_GT(cache_bytes(1), 0);
    EXPECT_EQ(cache_bytes(5), 5 * cache_bytes(1));
    EXPECT_EQ(bytes(5, Arena::weights), bytes(1, Arena::weights));
    EXPECT_GE(bytes(5, Arena::io) - bytes(1, Arena::io), 4 * 5 * golden_.vocab_size);
}

// What was seen is what stands in the sequence: a penalty that no logit outweighs forbids all of
// it, until the sequence is started anew.
TEST_P(GenerateTest, TheRepetitionPenaltySeesPromptAndText) {
    const auto session = make_session(4, 1, 2);
    Generator generator(*session);
    SamplingSettings sampling;
    sampling.repetition_penalty = 1000;
    for (int round = 0; round < 2; ++round) {
        std::vector<int32_t> text = prompt(6);
        text.push_back(generator.start(text.data(), 6, sampling, 0));
        const std::vector<int32_t> other = prompt(12);
        generator.start(other.data(), 12, sampling, 1);
        for (int i = 0; i < 15; ++i) text.push_back(generator.next());
        // The seen logits above 0 have shrunk to nothing; an unseen one above 0 is larger.
        for (size_t i = 6; i < text.size(); ++i)
            EXPECT_EQ(std::count(text.begin(), text.begin() + static_cast<int64_t>(i), text[i]), 0)
                << "round " << round << " token " << i;
    }
}

TEST_P(GenerateTest, SampledTextDependsOnTheSeed) {
    const auto session = make_session(4);
    Generator generator(*session);
    SamplingSettings sampling;
    sampling.temperature = 1.0;
    const std::vector<int32_t> text = continuation(generator, prompt(6), 20, sampling);
    EXPECT_EQ(continuation(generator, prompt(6), 20, sampling), text);
    EXPECT_NE(continuation(generator, prompt(6), 20, {}), text) << "greedy";
    sampling.seed = 2;
    EXPECT_NE(continuation(generator, prompt(6), 20, sampling), text) << "another seed";
    for (const int32_t token : text) {
        EXPECT_GE(token, 0);
        EXPECT_LT(token, golden_.vocab_size);
    }
}

// The first token over many seeds follows the softmax of the logits.
TEST_P(GenerateTest, SamplingFollowsTheModel) {
    const auto session = make_session(8);
    Generator generator(*session);
    const std::vector<int32_t> text = prompt(3);
    SamplingSettings sampling;
    sampling.temperature = 0.5;
    constexpr int kDraws = 2000;
    std::vector<double> counts(static_cast<size_t>(golden_.vocab_size), 0.0);
    for (int i = 0; i < kDraws; ++i) {
        sampling.seed = static_cast<uint64_t>(i);
        counts[static_cast<size_t>(generator.start(text.data(), 3, sampling))] += 1;
    }
    const Logits found = logits(generator);
    double total = 0, chi_squared = 0;
    for (const float x : found) total += std::exp(2.0 * static_cast<double>(x));
    for (size_t v = 0; v < found.size(); ++v) {
        const double expected = kDraws * std::exp(2.0 * static_cast<double>(found[v])) / total;
        chi_squared += (counts[v] - expected) * (counts[v] - expected) / expected;
    }
    // Mean V - 1 and variance about 2 (V - 1): six deviations.
    const auto freedom = static_cast<double>(golden_.vocab_size - 1);
    EXPECT_LT(chi_squared, freedom + 6 * std::sqrt(2 * freedom));
}

TEST_P(GenerateTest, AllocatesNothing) {
    if (!seal_is_enforced()) GTEST_SKIP() << "sanitizers own the allocator";
    const auto session = make_session(4, 2, 3);
    Generator generator(*session);
    const std::vector<int32_t> text = prompt(6);
    const SamplingSettings sampling{0.8, 1, 10, 0.9, 1.1};
    session->seal();  // from here on an allocation outside a library scope aborts
    for (int round = 0; round < 10; ++round) {
        for (int64_t n = 0; n < 3; ++n) generator.start(text.data(), 6, sampling, n);
        for (int i = 0; i < 20; ++i) generator.next();
    }
    unseal();
    const AllocationCounts counts = allocation_counts();
    for (const int64_t calls : counts.calls) EXPECT_EQ(calls, 0);
}

INSTANTIATE_TEST_SUITE_P(Models, GenerateTest, testing::Values("gpt2", "llama", "llama_bias"),
                         [](const auto& model) { return std::string(model.param); });

}  // namespace
}  // namespace plumb
