// Sampling against a sorted fp64 reference and against Hugging Face's logits processors: which
// tokens stay, with which probabilities, and which one is drawn.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>
#include <numeric>

#include "runtime/base/random.h"
#include "tests/golden/golden_model.h"
#include "tests/kernels/bound_case.h"
#include "tests/source_path.h"

namespace plumb::testing {
namespace {

struct Setting {
    double temperature = 1, top_p = 1, penalty = 1;
    int64_t top_k = 0;
};

using Distribution = std::vector<double>;

void set(StepScalars& scalars, const Setting& setting) {
    scalars.temperature = setting.temperature;
    scalars.top_k = setting.top_k;
    scalars.top_p = setting.top_p;
    scalars.repetition_penalty = setting.penalty;
}

// By definition: sort, cut, normalise.
Distribution reference(const std::vector<double>& logits, const std::vector<double>& seen,
                       const Setting& s) {
    const size_t size = logits.size();
    std::vector<float> x(logits.begin(), logits.end());
    const auto penalty = static_cast<float>(s.penalty);
    for (size_t i = 0; i < size; ++i)
        if (seen[i] != 0) x[i] = x[i] > 0 ? x[i] / penalty : x[i] * penalty;
    std::vector<size_t> order(size);
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return x[a] > x[b]; });
    Distribution p(size, 0.0);
    if (s.temperature == 0) {
        p[order[0]] = 1;
        return p;
    }
    const auto weight = [&](size_t i) {
        return std::exp((static_cast<double>(x[i]) - static_cast<double>(x[order[0]])) *
                        (1 / s.temperature));
    };
    size_t kept = s.top_k == 0 ? size : std::min(size, static_cast<size_t>(s.top_k));
    const auto sum = [&](size_t count) {
        double total = 0;
        for (size_t n = 0; n < count; ++n) total += weight(order[n]);
        return total;
    };
    if (s.top_p < 1) {
        const double goal = s.top_p * sum(kept);
        double above = 0;
        size_t count = 0;
        while (count < kept && above < goal) above += weight(order[count++]);
        kept = count;
    }
    const double total = sum(kept);
    for (size_t n = 0; n < kept; ++n) p[order[n]] = weight(order[n]) / total;
    return p;
}

// The first token at which the sum of probabilities exceeds u.
int32_t drawn(const Distribution& p, double u) {
    double sum = 0;
    for (size_t i = 0; i < p.size(); ++i)
        if ((sum += p[i]) > u) return static_cast<int32_t>(i);
    return -1;
}

// Random numbers, numbers with many ties, equal numbers, numbers beyond what exp holds, one number,
// both zeros, infinities of both signs below the largest.
std::vector<std::vector<double>> logit_rows() {
    std::vector<std::vector<double>> rows;
    for (const int64_t size : {2, 7, 101, 1000}) {
        std::vector<double> normal, tied, far;
        for (int64_t i = 0; i < size; ++i) {
            normal.push_back(3 * number(5, i));
            tied.push_back(std::round(2 * number(6, i)) / 2);
            far.push_back(static_cast<double>(static_cast<float>(500 * number(7, i))));
        }
        rows.insert(rows.end(), {normal, tied, far});
    }
    for (std::vector<double>& row : rows)
        for (double& x : row) x = static_cast<double>(static_cast<float>(x));
    rows.emplace_back(256, 1.5);
    rows.push_back({-3.0});
    rows.push_back({-0.0, 0.0, -0.0, 0.0, -1.0, 1e-30});
    rows.push_back({1.0, -std::numeric_limits<double>::infinity(), 2.0});
    return rows;
}

std::vector<Setting> settings(int64_t size) {
    std::vector<Setting> made;
    for (const double temperature : {0.3, 1.0, 2.5})
        for (const double top_p : {1e-12, 0.1, 0.5, 0.93, 0.9999999, 1.0})
            for (const double penalty : {1.0, 1.3, 0.5})
                for (const int64_t top_k :
                     {int64_t{0}, int64_t{1}, int64_t{2}, int64_t{5}, size - 1, size, size + 9})
                    made.push_back({temperature, top_p, penalty, top_k});
    made.push_back({0, 0.9, 1.3, 5});
    return made;
}

class Sampling : public ::testing::TestWithParam<Isa> {};

// What stays is what the reference keeps; each probability within rounding of fp64 sums.
TEST_P(Sampling, DistributionIsTheReferences) {
    for (const std::vector<double>& row : logit_rows()) {
        const auto size = static_cast<int64_t>(row.size());
        const KernelCase c = sample_case(1, size);
        Values values = fill_case(c, 1);
        values[1] = row;
        BoundCase bound(c, values, GetParam(), 1);
        for (const Setting& setting : settings(size)) {
            set(bound.scalars, setting);
            const Distribution p = reference(row, values[2], setting);
            for (int64_t n = 0; n < 3; ++n) {
                bound.at<int64_t>(3)[1] = n;
                bound.run();
                ASSERT_TRUE(bound.red_zones_intact());
                const double u = random_uniform(11, static_cast<uint64_t>(n));
                ASSERT_EQ(bound.at<int32_t>(0)[0], drawn(p, u)) << size << " draw " << n;
            }
            if (setting.temperature == 0) continue;
            const auto* weight = reinterpret_cast<const double*>(bound.scratch().data());
            const double total = std::accumulate(weight, weight + size, 0.0);
            for (int64_t i = 0; i < size; ++i) {
                const double wanted = p[static_cast<size_t>(i)];
                ASSERT_EQ(weight[i] > 0, wanted > 0)
                    << "token " << i << " of " << size << ": temperature " << setting.temperature
                    << ", k " << setting.top_k << ", p " << setting.top_p << ", penalty "
                    << setting.penalty;
                ASSERT_NEAR(weight[i] / total, wanted, 1e-13 * wanted);
            }
        }
    }
}

// Of several warps, and of more tokens than a block has threads; with ties everywhere, so that a
// cut falls among equal logits of different warps.
TEST_P(Sampling, ALargeVocabulary) {
    for (const int64_t size : {5003, 40000})
        for (const bool tied : {false, true}) {
            const KernelCase c = sample_case(1, size);
            Values values = fill_case(c, 4);
            for (double& x : values[1]) x = tied ? std::round(2 * x) / 2 : x;
            BoundCase forwards(c, values, GetParam(), 1), backwards(c, values, GetParam(), 2);
            for (const Setting& setting : {Setting{0.7, 1, 1, 0}, Setting{0.7, 0.9, 1.3, 0},
                                           Setting{1.5, 0.5, 1, size / 3}, Setting{0, 1, 1.3, 0}}) {
                const Distribution p = reference(values[1], values[2], setting);
                for (int64_t n = 0; n < (size < 10000 ? 3 : 1); ++n) {
                    for (BoundCase* bound : {&forwards, &backwards}) {
                        set(bound->scalars, setting);
                        bound->at<int64_t>(3)[1] = n;
                        bound->run();
                        ASSERT_TRUE(bound->red_zones_intact());
                        ASSERT_EQ(bound->at<int32_t>(0)[0],
                                  drawn(p, random_uniform(11, static_cast<uint64_t>(n))))
                            << size << (tied ? " tied" : "") << " draw " << n;
                    }
                    if (setting.temperature == 0) continue;
                    const auto* weight = reinterpret_cast<const double*>(forwards.scratch().data());
                    for (int64_t i = 0; i < size; ++i)
                        ASSERT_EQ(weight[i] > 0, p[static_cast<size_t>(i)] > 0) << i;
                    ASSERT_EQ(std::memcmp(weight, backwards.scratch().data(),
                                          static_cast<size_t>(size) * sizeof(double)),
                              0);
                }
            }
        }
}

// A model that diverged still yields ids: a NaN is never larger than another logit, and the first
// token's is never exceeded.
TEST_P(Sampling, NanLogitsYieldIds) {
    const KernelCase c = sample_case(3, 70);
    Values values = fill_case(c, 1);
    const double nan = std::numeric_limits<double>::quiet_NaN();
    values[1][0] = nan;
    values[1][70 + 40] = nan, values[1][70 + 50] = 100;
    std::fill(values[1].begin() + 140, values[1].end(), nan);
    BoundCase bound(c, values, GetParam(), 1);
    set(bound.scalars, {0, 1, 1, 0});
    bound.run();
    EXPECT_EQ(bound.at<int32_t>(0)[0], 0);
    EXPECT_EQ(bound.at<int32_t>(0)[1], 50);
    EXPECT_EQ(bound.at<int32_t>(0)[2], 0);
    for (const Setting& setting : {Setting{1, 1, 1, 0}, Setting{1, 0.9, 1.3, 5}}) {
        set(bound.scalars, setting);
        bound.run();
        EXPECT_TRUE(bound.red_zones_intact());
        for (int b = 0; b < 3; ++b) {
            EXPECT_GE(bound.at<int32_t>(0)[b], 0);
            EXPECT_LT(bound.at<int32_t>(0)[b], 70);
        }
    }
}

TEST_P(Sampling, DrawsFollowTheDistribution) {
    const int64_t size = 41;
    const KernelCase c = sample_case(1, size);
    const Values values = fill_case(c, 9);
    BoundCase bound(c, values, GetParam(), 1);
    const Setting setting{0.8, 0.9, 1.2, 20};
    set(bound.scalars, setting);
    const Distribution p = reference(values[1], values[2], setting);
    std::vector<int> count(static_cast<size_t>(size));
    for (int64_t n = 0; n < 20000; ++n) {
        bound.at<int64_t>(3)[1] = n;
        bound.run();
        const int32_t token = bound.at<int32_t>(0)[0];
        ASSERT_EQ(token, drawn(p, random_uniform(11, static_cast<uint64_t>(n))));
        ++count[static_cast<size_t>(token)];
    }
    for (size_t i = 0; i < p.size(); ++i)
        EXPECT_NEAR(count[i] / 20000.0, p[i], 5 * std::sqrt(p[i] * (1 - p[i]) / 20000)) << i;
}

// k = 1 and tiny p choose as temperature 0 does: the first of the largest.
TEST_P(Sampling, OneTokenIsTheGreedyOne) {
    const KernelCase c = sample_case(3, 101);
    Values values = fill_case(c, 1);
    for (const int64_t at : {17, 18, 100}) values[1][static_cast<size_t>(at)] = 9.0;
    values[1][101] = 9.0;
    std::fill(values[1].begin() + 202, values[1].end(), -3.0);
    BoundCase bound(c, values, GetParam(), 2);
    for (const Setting& setting :
         {Setting{0, 1, 1, 0}, Setting{2, 1, 1, 1}, Setting{2, 1e-9, 1, 0}}) {
        set(bound.scalars, setting);
        bound.run();
        EXPECT_EQ(bound.at<int32_t>(0)[0], 17);
        EXPECT_EQ(bound.at<int32_t>(0)[1], 0);
        EXPECT_EQ(bound.at<int32_t>(0)[2], 0);
    }
}

// The reference against transformers (scripts/make_goldens.py), and the kernel against both.
TEST_P(Sampling, ProcessorsAreThoseOfHuggingFace) {
    std::ifstream file(source_path("tests/golden/sampling.json"));
    const nlohmann::json golden = nlohmann::json::parse(file);
    const auto size = golden.at("vocab_size").get<int64_t>();
    const KernelCase c = sample_case(1, size);
    Values values = fill_case(c, 1);
    std::fill(values[2].begin(), values[2].end(), 0.0);
    for (const auto& id : golden.at("seen")) values[2][id.get<size_t>()] = 1;
    for (int64_t i = 0; i < size; ++i)
        values[1][static_cast<size_t>(i)] = 32 * static_cast<double>(golden_value("sampling", i));
    ASSERT_GE(golden.at("cases").size(), 9u);
    for (const nlohmann::json& made : golden.at("cases")) {
        const Setting setting{made.at("temperature"), made.at("top_p"),
                              made.at("repetition_penalty"), made.at("top_k")};
        Distribution wanted(static_cast<size_t>(size));
        for (const auto& pair : made.at("probabilities"))
            wanted[pair.at(0).get<size_t>()] = pair.at(1).get<double>();
        const Distribution p = reference(values[1], values[2], setting);
        BoundCase bound(c, values, GetParam(), 1);
        set(bound.scalars, setting);
        bound.run();
        const auto* weight = reinterpret_cast<const double*>(bound.scratch().data());
        const double total = std::accumulate(weight, weight + size, 0.0);
        for (size_t i = 0; i < wanted.size(); ++i) {
            ASSERT_EQ(weight[i] > 0, wanted[i] > 0) << made << " token " << i;
            // The penalty is applied in fp32.
            ASSERT_NEAR(p[i], wanted[i], 2e-6 * wanted[i]) << made << " token " << i;
            ASSERT_NEAR(weight[i] / total, wanted[i], 2e-6 * wanted[i]) << made << " token " << i;
        }
    }
}

// A row's draw belongs to its sequence, whatever row and thread it is on.
TEST_P(Sampling, ARowNamesItsSequence) {
    const int64_t sequences = 7, size = 53;
    const KernelCase all = sample_case(sequences, size);
    const Values values = fill_case(all, 3);
    const Setting setting{1.1, 0.95, 1.4, 30};
    BoundCase whole(all, values, GetParam(), 3);
    set(whole.scalars, setting);
    whole.run();
    ASSERT_TRUE(whole.red_zones_intact());
    for (int64_t n = 0; n < sequences; ++n) {
        const KernelCase one = sample_case(1, size, sequences);
        Values v = values;
        v[1].assign(values[1].begin() + n * size, values[1].begin() + (n + 1) * size);
        v[4] = {static_cast<double>(n)};
        BoundCase bound(one, v, GetParam(), 3);
        set(bound.scalars, setting);
        bound.run();
        EXPECT_EQ(bound.at<int32_t>(0)[0], whole.at<int32_t>(0)[n]) << n;
        const Distribution p = reference(
            v[1], {values[2].begin() + n * size, values[2].begin() + (n + 1) * size}, setting);
        const auto key = static_cast<uint64_t>(values[3][static_cast<size_t>(2 * n)]);
        const auto draw = static_cast<uint64_t>(values[3][static_cast<size_t>(2 * n + 1)]);
        EXPECT_EQ(bound.at<int32_t>(0)[0], drawn(p, random_uniform(key, draw))) << n;
    }
}

INSTANTIATE_TEST_SUITE_P(Kernels, Sampling, ::testing::ValuesIn(tested_isas()),
                         [](const auto& tested) { return std::string(isa_name(tested.param)); });

}  // namespace
}  // namespace plumb::testing
