#include "trainer/step_log.h"

#include <cmath>
#include <limits>

#include "tests/trainer/train_folder.h"

namespace plumb {
namespace {

class StepLogFile : public TrainFolder {
  protected:
    void SetUp() override {
        TrainFolder::SetUp();
        std::filesystem::create_directory(path("run"));
        ::testing::internal::CaptureStdout();
    }
    void TearDown() override {
        said();
        TrainFolder::TearDown();
    }
    std::string said() {
        if (!captured_) return "";
        captured_ = false;
        return ::testing::internal::GetCapturedStdout();
    }
    static StepLine line(int64_t step) {
        StepLine made;
        made.step = step;
        made.tokens = step * 1000;
        made.loss = 1.0 / 3.0;
        made.grad_norm = 0.5;
        made.lr = 1e-3;
        made.step_ms = 12.5;
        made.tokens_per_s = 80000;
        made.mfu = 0.25;
        made.left_s = 125;
        return made;
    }
    std::string file() const { return contents_of(path("run/log.jsonl")); }
    bool captured_ = true;
};

std::vector<std::string> keys(const nlohmann::json& object) {
    std::vector<std::string> names;
    for (const auto& item : object.items()) names.push_back(item.key());
    return names;  // in alphabetical order
}

TEST_F(StepLogFile, LinesHaveExactlyTheirKeys) {
    {
        StepLog log(path("run"), 0, 10);
        log.step(line(1));
        log.evaluation(1, 2.5, 0.1);
        SaveReport report;
        report.digest = {0x1234, 0xabcd};
        report.seconds = 0.5;
        report.file_bytes = 123456;
        report.stall_s = 0.25;
        report.waited_s = 0.125;
        report.waited_count = 3;
        log.saved(1, report);
        log.started("{\"step\":1,\"plan\":{}}\n");
        PeakMemory peak;
        peak.sample();
        log.ended(1, peak);
    }
    EXPECT_EQ(this->log("plan"),
              (std::vector<nlohmann::json>{{{"step", 1}, {"plan", nlohmann::json::object()}}}));
    const auto ends = this->log("peak_bytes");
    ASSERT_EQ(ends.size(), 1u);
    EXPECT_EQ(keys(ends[0]), (std::vector<std::string>{"mapped_file_bytes", "peak_bytes", "step"}));
    EXPECT_GT(ends[0]["peak_bytes"].get<int64_t>(), 0);
    const auto steps = this->log("loss");
    ASSERT_EQ(steps.size(), 1u);
    EXPECT_EQ(keys(steps[0]),
              (std::vector<std::string>{"grad_norm", "loss", "lr", "mfu", "skipped", "step",
                                        "step_ms", "tokens", "tokens_per_s"}));
    EXPECT_EQ(steps[0]["loss"].get<double>(), 1.0 / 3.0) << "the number itself, not a rounded one";
    EXPECT_EQ(steps[0]["tokens"].get<int64_t>(), 1000);
    EXPECT_EQ(this->log("valid_loss"),
              (std::vector<nlohmann::json>{{{"step", 1}, {"valid_loss", 2.5}}}));
    EXPECT_EQ(this->log("state_digest"),
              (std::vector<nlohmann::json>{{{"step", 1},
                                            {"state_digest", "000000000000abcd0000000000001234"},
                                            {"seconds", 0.5},
                                            {"bytes", 123456},
                                            {"stall_ms", 250},
                                            {"waited_ms", 125},
                                            {"waited", 3}}}));
    const std::string text = said();
    EXPECT_NE(text.find("0.1 MB in 0.50 s, stall 250.0 ms  digest 0000"), std::string::npos);
    EXPECT_NE(text.find("was due 125.0 ms before the end of the save before it"),
              std::string::npos);
}

TEST_F(StepLogFile, NumbersThatAreNotFiniteAreNull) {
    {
        StepLog log(path("run"), 0, 10);
        StepLine bad = line(1);
        bad.loss = -std::nan("");
        bad.grad_norm = std::numeric_limits<double>::infinity();
        bad.left_s = std::nan("");
        bad.skipped = 3;
        bad.skipped_now = true;
        log.step(bad);
        log.evaluation(1, -std::numeric_limits<double>::infinity(), 0.1);
    }
    const auto steps = this->log("loss");
    ASSERT_EQ(steps.size(), 1u);
    EXPECT_TRUE(steps[0]["loss"].is_null());
    EXPECT_TRUE(steps[0]["grad_norm"].is_null());
    EXPECT_EQ(steps[0]["skipped"].get<int64_t>(), 3);
    EXPECT_TRUE(this->log("valid_loss").at(0)["valid_loss"].is_null());
    const std::string text = said();
    EXPECT_NE(text.find("skipped: the gradients of step 1 are not finite"), std::string::npos);
    EXPECT_NE(text.find("3 skipped so far"), std::string::npos) << text;
    EXPECT_NE(text.find("  loss nan  norm inf  "), std::string::npos) << text;
}

TEST_F(StepLogFile, AConsoleLineSaysEverything) {
    {
        StepLog log(path("run"), 0, 200);
        log.step(line(7));
    }
    EXPECT_EQ(said(),
              "step   7/200  7.00K tok  loss 0.3333  norm 0.5  lr 1.00e-03  12.5 ms  80.0K tok/s  "
              "25.0% of peak  eta 2m05s\n");
}

TEST_F(StepLogFile, LogEveryThinsTheConsoleOnly) {
    {
        StepLog log(path("run"), 0, 10, 4);
        for (int64_t step = 1; step <= 10; ++step) {
            StepLine made = line(step);
            made.skipped_now = step == 6;
            log.step(made);
        }
    }
    EXPECT_EQ(this->log("loss").size(), 10u);
    const std::string text = said();
    for (int64_t step = 1; step <= 10; ++step) {
        const bool due = step == 1 || step == 4 || step == 6 || step == 8 || step == 10;
        const std::string start = fmt::format("step {:>2}/10", step);
        EXPECT_EQ(text.find(start) != std::string::npos, due) << start;
    }
}

TEST_F(StepLogFile, AFileSystemThatCannotReserveIsSaidOnce) {
    SaveReport report;
    std::snprintf(report.directory.text, sizeof report.directory.text, "run/step-1");
    StepLog log(path("run"), 0, 10);
    log.saved(1, report);
    report.reserved = false;
    log.saved(2, report);
    log.saved(3, report);
    const std::string text = said();
    const std::string note = "note: the file system of run/step-1 cannot reserve space";
    const size_t at = text.find(note);
    ASSERT_NE(at, std::string::npos) << text;
    EXPECT_GT(at, text.find("saved step 2"));
    EXPECT_EQ(text.find(note, at + 1), std::string::npos) << text;
}

TEST_F(StepLogFile, AResumeContinuesBehindItsStep) {
    const std::string kept =
        "{\"step\":1,\"loss\":1}\n{\"step\":2,\"loss\":1}\n{\"step\":2,\"valid_loss\":1}\n";
    put("run/log.jsonl", kept + "{\"step\":3,\"loss\":1}\n{\"step\":2,\"state_dig");
    { StepLog log(path("run"), 2, 10); }
    EXPECT_EQ(file(), kept);
    {
        StepLog log(path("run"), 2, 10);
        log.evaluation(3, 0.5, 1);
    }
    EXPECT_EQ(file(), kept + "{\"step\":3,\"valid_loss\":0.5}\n");
}

TEST_F(StepLogFile, ANewRunKeepsTheOldLogAside) {
    put("run/log.jsonl", "{\"step\":1,\"loss\":1}\n");
    { StepLog log(path("run"), 0, 10); }
    EXPECT_EQ(file(), "");
    EXPECT_EQ(contents_of(path("run/log.jsonl.old")), "{\"step\":1,\"loss\":1}\n");
}

TEST_F(StepLogFile, AFolderThatIsMissingIsAnError) {
    EXPECT_THROW(StepLog(path("none"), 0, 10), Error);
}

TEST(ShortText, Counts) {
    const struct {
        double count;
        const char* text;
    } cases[] = {{0, "0"},         {999, "999"},      {999.6, "1.00K"}, {1000, "1.00K"},
                 {9994, "9.99K"},  {9996, "10.0K"},   {99949, "99.9K"}, {99951, "100K"},
                 {999499, "999K"}, {999501, "1.00M"}, {2.5e9, "2.50G"}, {3e12, "3.00T"},
                 {5e15, "5000T"}};
    for (const auto& c : cases) EXPECT_STREQ(short_count(c.count).text, c.text) << c.count;
}

TEST(ShortText, Times) {
    const struct {
        double seconds;
        const char* text;
    } cases[] = {{0, "0s"},           {59.4, "59s"},     {59.6, "1m00s"},  {3599, "59m59s"},
                 {3600, "1h00m"},     {86399, "23h59m"}, {90000, "1d01h"}, {-5, "0s"},
                 {std::nan(""), "?"}, {1e300, "?"}};
    for (const auto& c : cases) EXPECT_STREQ(short_time(c.seconds).text, c.text) << c.seconds;
}

}  // namespace
}  // namespace plumb
