#include "runtime/plan/report.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <sstream>

#include "tests/runtime/plan/small_program.h"

namespace plumb {
namespace {

class Report : public testing::Test {
  protected:
    void SetUp() override {
        small_ = make_training_program().first;
        small_.program.params.emplace_back().shape = make_shape(256);
        plan_ = make_plan(small_.program, test_device());
        subject_ = {"tiny", "train, fp32", "1 rank", test_device(), 0};
    }
    int64_t needed() const { return plan_.total_bytes + plan_.outside_bytes; }
    std::string text() const { return report_text(small_.program, plan_, subject_); }

    SmallProgram small_;
    Plan plan_;
    ReportSubject subject_;
};

TEST(HumanBytes, UnitsAndRounding) {
    EXPECT_EQ(human_bytes(0), "0 B");
    EXPECT_EQ(human_bytes(1023), "1023 B");
    EXPECT_EQ(human_bytes(1024), "1.00 KiB");
    EXPECT_EQ(human_bytes(1536), "1.50 KiB");
    EXPECT_EQ(human_bytes(kMiB - 1), "1.00 MiB");
    EXPECT_EQ(human_bytes(10234), "9.99 KiB");
    EXPECT_EQ(human_bytes(10235), "10.0 KiB");
    EXPECT_EQ(human_bytes(64 * kKiB + 64), "64.1 KiB");
    EXPECT_EQ(human_bytes(1000 * kMiB), "1000 MiB");
    EXPECT_EQ(human_bytes(kGiB), "1.00 GiB");
    EXPECT_EQ(human_bytes((int64_t{28} << 40) / 10), "2.80 TiB");
    EXPECT_EQ(human_bytes(INT64_MAX), "8.00 EiB");
    EXPECT_EQ(human_bytes(-1536), "-1.50 KiB");
}

TEST(GroupedDigits, Thousands) {
    EXPECT_EQ(grouped_digits(0), "0");
    EXPECT_EQ(grouped_digits(999), "999");
    EXPECT_EQ(grouped_digits(1000), "1,000");
    EXPECT_EQ(grouped_digits(497759232), "497,759,232");
    EXPECT_EQ(grouped_digits(-1234567), "-1,234,567");
    EXPECT_EQ(grouped_digits(-123), "-123");
}

TEST_F(Report, FitsIncludesOutsideToTheByte) {
    EXPECT_TRUE(fits(plan_, subject_));
    subject_.memory_bytes = needed();
    EXPECT_TRUE(fits(plan_, subject_));
    EXPECT_NE(text().find("yes, 0 B to spare"), std::string::npos) << text();
    subject_.memory_bytes = needed() - 1;
    EXPECT_FALSE(fits(plan_, subject_));
    EXPECT_NE(text().find("does not fit"), std::string::npos) << text();
    EXPECT_NE(text().find("short by 1 B"), std::string::npos) << text();
}

TEST_F(Report, TextHasEveryArenaInUseAndStaysNarrow) {
    const std::string report = text();
    for (const char* arena : {"weights", "grads", "moments", "stash", "scratch", "io", "staging"})
        EXPECT_NE(report.find("\n  " + std::string(arena) + " "), std::string::npos) << arena;
    EXPECT_EQ(report.find("kv_cache"), std::string::npos) << "an empty arena is listed";
    EXPECT_NE(report.find(grouped_digits(plan_.total_bytes)), std::string::npos);
    EXPECT_NE(report.find("estimated"), std::string::npos);
    EXPECT_EQ(report.find("measured"), std::string::npos) << "planning measures nothing";
    EXPECT_NE(report.find("backward: head_loss_backward (op 4)"), std::string::npos) << report;
    std::istringstream lines(report);
    for (std::string line; std::getline(lines, line);) {
        EXPECT_LE(line.size(), 100u) << line;
        EXPECT_TRUE(line.empty() || line.back() != ' ') << "trailing space: " << line;
    }
}

TEST_F(Report, Json) {
    subject_.memory_bytes = needed() - 1;
    const auto json = nlohmann::json::parse(report_json(small_.program, plan_, subject_));
    EXPECT_EQ(json.at("digest"), to_hex(plan_.digest));
    EXPECT_EQ(json.at("fits"), false);
    EXPECT_EQ(json.at("memory"), needed() - 1);
    EXPECT_EQ(json.at("schema"), 1);
    EXPECT_EQ(json.at("parameters"), 256);
    ASSERT_EQ(json.at("ranks").size(), 1u);
    const auto& rank = json.at("ranks").at(0);
    EXPECT_EQ(rank.at("ranks"), "0");
    EXPECT_EQ(rank.at("total_bytes"), plan_.total_bytes);
    EXPECT_EQ(rank.at("lower_bound_bytes"), plan_.lower_bound_slots_bytes);
    EXPECT_EQ(rank.at("outside_bytes"), plan_.outside_bytes);
    EXPECT_EQ(rank.at("peak").at("phase"), "generate");
    EXPECT_EQ(rank.at("peak").at("section"), "decode");
    EXPECT_EQ(rank.at("peak").at("op"), "zero");
    int64_t sum = 0;
    for (int a = 0; a < kArenaCount; ++a) {
        const int64_t bytes = rank.at("arenas").at(arena_name(static_cast<Arena>(a)));
        EXPECT_EQ(bytes, plan_.arena_bytes[a]);
        sum += bytes;
    }
    EXPECT_EQ(rank.at("arenas").size(), static_cast<size_t>(kArenaCount));
    EXPECT_EQ(sum, plan_.total_bytes);
    EXPECT_EQ(rank.at("phases").size(), 4u);
    EXPECT_EQ(rank.at("phases").at(0).at("peak").at("op_index"), 4);
}

TEST_F(Report, RecomputeChoicesAgainstTheChosenOne) {
    EXPECT_EQ(text().find("recompute"), std::string::npos);
    subject_.recompute = {{"none", 3 * kMiB, 9 * kMiB, false},
                          {"selective", 2 * kMiB, 8 * kMiB, true},
                          {"block:1", kMiB, 6 * kMiB, false}};
    const std::string report = text();
    EXPECT_NE(report.find("  none              3.00 MiB    9.00 MiB  1.00 MiB more\n"
                          "* selective         2.00 MiB    8.00 MiB\n"
                          "  block:1           1.00 MiB    6.00 MiB  2.00 MiB less\n"),
              std::string::npos)
        << report;
    const auto json = nlohmann::json::parse(report_json(small_.program, plan_, subject_));
    ASSERT_EQ(json.at("recompute").size(), 3u);
    EXPECT_EQ(json.at("recompute").at(2).at("recompute"), "block:1");
    EXPECT_EQ(json.at("recompute").at(2).at("stash_bytes"), kMiB);
    EXPECT_EQ(json.at("recompute").at(2).at("total_bytes"), 6 * kMiB);
    EXPECT_EQ(json.at("recompute").at(1).at("chosen"), true);
}

TEST_F(Report, ChangesWhenItDoesNotFit) {
    subject_.changes = {{"--batch.micro_batch=2", "other rounding", needed() - 64, 64, true},
                        {"--run.threads=1", "same bits; one core", needed() - 1, 1, false}};
    subject_.memory_bytes = needed();
    EXPECT_EQ(text().find("--batch.micro_batch=2"), std::string::npos) << "it fits as it is";
    subject_.memory_bytes = needed() - 2;
    const std::string report = text();
    EXPECT_NE(report.find("yes  other rounding\n"), std::string::npos) << report;
    EXPECT_NE(report.find("no   same bits; one core\n"), std::string::npos) << report;
    EXPECT_EQ(report.find("no single change fits"), std::string::npos) << report;
    const auto json = nlohmann::json::parse(report_json(small_.program, plan_, subject_));
    EXPECT_EQ(json.at("changes").at(0).at("setting"), "--batch.micro_batch=2");
    EXPECT_EQ(json.at("changes").at(0).at("needed_bytes"), needed() - 64);
    EXPECT_EQ(json.at("changes").at(0).at("saved_bytes"), 64);
    EXPECT_EQ(json.at("changes").at(0).at("fits"), true);
    EXPECT_EQ(json.at("changes").at(1).at("price"), "same bits; one core");
    EXPECT_TRUE(json.at("pair").is_null());
    EXPECT_EQ(report.find("fits with"), std::string::npos) << report;
    subject_.pair = {{"--a=1", "--b=2"}, 64};
    EXPECT_NE(text().find("\n  fits with --a=1 --b=2: needs 64 B\n"), std::string::npos) << text();
    const auto paired = nlohmann::json::parse(report_json(small_.program, plan_, subject_));
    EXPECT_EQ(paired.at("pair").at("settings").at(1), "--b=2");
    EXPECT_EQ(paired.at("pair").at("needed_bytes"), 64);
    subject_.changes.erase(subject_.changes.begin());
    EXPECT_NE(text().find("no single change fits; the best, --run.threads=1, is short by 1 B"),
              std::string::npos)
        << text();
    subject_.changes.clear();
    EXPECT_NE(text().find("no single change saves"), std::string::npos) << text();
}

TEST_F(Report, JsonWithoutMemory) {
    const auto json = nlohmann::json::parse(report_json(small_.program, plan_, subject_));
    EXPECT_TRUE(json.at("memory").is_null());
    EXPECT_EQ(json.at("fits"), true);
}

}  // namespace
}  // namespace plumb
