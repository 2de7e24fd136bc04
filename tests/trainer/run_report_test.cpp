// What the report makes of a log: curves, broken lines, and a page in which no text of the log can
// become markup. How the page looks in a browser is scripts/check_report.sh's.
#include "trainer/run_report.h"

#include <algorithm>
#include <cmath>

#include <fmt/format.h>

#include "runtime/base/error.h"
#include "tests/trainer/train_folder.h"
#include "trainer/run_history.h"

namespace plumb {
namespace {

TEST(Thinned, FewPointsStayThemselves) {
    const auto points = thinned({{1, 2.0}, {2, NAN}, {5, -1.0}}, 3);
    ASSERT_EQ(points.size(), 3u);
    EXPECT_EQ(points[0].first_step, 1);
    EXPECT_EQ(points[0].last_step, 1);
    EXPECT_EQ(points[0].mean, 2.0);
    EXPECT_EQ(points[1].count, 0);
    EXPECT_EQ(points[2].low, -1.0);
    EXPECT_EQ(points[2].high, -1.0);
    EXPECT_TRUE(thinned({}, 3).empty());
}

TEST(Thinned, GroupsHaveMeanLowestAndHighest) {
    std::vector<CurveValue> values;
    for (int64_t step = 1; step <= 10; ++step)
        values.push_back({step, step == 5 ? INFINITY : static_cast<double>(step)});
    const auto points = thinned(values, 3);  // of 4, 4 and 2
    ASSERT_EQ(points.size(), 3u);
    EXPECT_EQ(points[1].first_step, 5);
    EXPECT_EQ(points[1].last_step, 8);
    EXPECT_EQ(points[1].count, 3);
    EXPECT_DOUBLE_EQ(points[1].mean, 7.0);
    EXPECT_EQ(points[1].low, 6.0);
    EXPECT_EQ(points[1].high, 8.0);
    EXPECT_DOUBLE_EQ(points[2].mean, 9.5);
}

class RunReport : public TrainFolder {
  protected:
    // Runs plumb-train report ARGUMENTS in the folder.
    int report(const std::string& arguments) {
        const std::string command = "cd " + folder_ + " && " PLUMB_BIN_DIR "/plumb-train report " +
                                    arguments + " >stdout.txt 2>stderr.txt";
        const int status = std::system(command.c_str());
        output_ = contents_of(path("stdout.txt"));
        error_ = contents_of(path("stderr.txt"));
        return WEXITSTATUS(status);
    }
    // The run's data out of a page.
    nlohmann::json data(const std::string& page) const {
        const std::string text = contents_of(path(page)), before = "id=\"run\">";
        const size_t begin = text.find(before) + before.size();
        return nlohmann::json::parse(text.substr(begin, text.find("</script>", begin) - begin));
    }
    static std::string step(int64_t number, int64_t skipped, const std::string& norm = "1.5") {
        return fmt::format(
            "{{\"step\":{},\"tokens\":{},\"loss\":2.5,\"grad_norm\":{},\"lr\":0.001,"
            "\"step_ms\":1,\"tokens_per_s\":1000,\"mfu\":0.5,\"skipped\":{}}}\n",
            number, number * 10, norm, skipped);
    }
};

TEST_F(RunReport, ShowsARunThatWasResumed) {
    ASSERT_EQ(train("--train.stop_at=40 --train.eval_every=20"), 0) << error_;
    ASSERT_EQ(train("--train.eval_every=20"), 0) << error_;
    ASSERT_EQ(report("run"), 0) << error_;
    EXPECT_EQ(output_, "wrote run/report.html: 100 steps, 5 saves, 0 skipped\n");
    const auto shown = data("run/report.html");
    EXPECT_EQ(shown["last_step"], 100);
    EXPECT_EQ(shown["last_tokens"], 6400);
    EXPECT_EQ(shown["broken_line_count"], 0);
    const auto lines = log("loss");
    for (size_t i = 0; i < 100; ++i) {
        EXPECT_EQ(shown["curves"]["loss"]["first"][i], i + 1);
        for (const char* key : {"loss", "grad_norm", "lr", "tokens_per_s", "mfu"})
            EXPECT_EQ(shown["curves"][key]["mean"][i], lines[i][key]) << key << i;
    }
    EXPECT_EQ(shown["curves"]["valid_loss"]["last"], (std::vector<int>{20, 40, 60, 80, 100}));
    EXPECT_EQ(shown["curves"]["loss_scale"]["mean"].size(), 0u);
    ASSERT_EQ(shown["starts"].size(), 2u);
    EXPECT_EQ(shown["starts"][0]["step"], 0);
    EXPECT_EQ(shown["starts"][1]["step"], 40);
    EXPECT_GT(shown["starts"][1]["time"], 1'700'000'000);
    ASSERT_EQ(shown["saves"].size(), 5u);
    EXPECT_EQ(shown["saves"][4], log("state_digest").back());
    EXPECT_NE(shown["settings"].get<std::string>().find("train.steps = 100\n"), std::string::npos);
}

TEST_F(RunReport, ThePlanIsTheOneThatRanAndThePeakTheOneMeasured) {
    ASSERT_EQ(train("--train.steps=5 --train.warmup_steps=0"), 0) << error_;
    const std::string said = output_;
    ASSERT_EQ(report("run --output=page.html"), 0) << error_;
    EXPECT_FALSE(std::filesystem::exists(path("run/report.html")));
    const auto shown = data("page.html");
    const auto& plan = shown["plan"];
    EXPECT_EQ(plan["model"], "run.toml");
    EXPECT_NE(said.find("plan " + plan["digest"].get<std::string>()), std::string::npos) << said;
    const auto& rank = plan["ranks"][0];
    int64_t sum = 0;
    for (const auto& [name, bytes] : rank["arenas"].items()) sum += bytes.get<int64_t>();
    EXPECT_EQ(rank["total_bytes"], sum);
    const auto planned = sum + rank["outside_bytes"].get<int64_t>();
    EXPECT_NE(
        said.find(fmt::format("peak memory: {} bytes", shown["end"]["peak_bytes"].get<int64_t>())),
        std::string::npos)
        << said;
    EXPECT_NE(said.find(fmt::format("against {} planned", planned)), std::string::npos) << said;
}

TEST_F(RunReport, BrokenLinesAreCountedAndPassedOver) {
    std::filesystem::create_directory(path("run"));
    put("run/log.jsonl",
        step(1, 0) + "\n[]\nnot json\n{\"step\":-1,\"loss\":1}\n{\"step\":2.5}\n{\"loss\":1}\n" +
            step(2, 1, "null") + step(3, 1, "\"x\"") + step(3, 2, "1e999") + step(4, 2) +
            "{\"step\":4,\"valid_loss\":[]}\n{\"step\":4,\"later\":true}\n"
            "{\"step\":4,\"state_digest\":\"ab\",\"stall_ms\":3.5,\"waited\":1}\n{\"step\":5,\"lo");
    const RunHistory history = read_run_history(path("run/log.jsonl"));
    EXPECT_EQ(history.line_count, 15);
    EXPECT_EQ(history.broken_line_count, 10);
    EXPECT_EQ(history.loss.size(), 3u);
    EXPECT_TRUE(std::isnan(history.grad_norm[1].value));
    EXPECT_EQ(history.skipped_steps, (std::vector<int64_t>{2, 4}));
    EXPECT_EQ(history.last_tokens, 40);
    ASSERT_EQ(history.saves.size(), 1u);
    EXPECT_EQ(history.saves[0]["stall_ms"], 3.5);
    ASSERT_EQ(report("run"), 0) << error_;
    EXPECT_EQ(output_,
              "wrote run/report.html: 3 steps, 1 saves, 2 skipped\n"
              "note: run/log.jsonl: 10 of 15 lines are broken and were passed over\n");
    EXPECT_TRUE(data("run/report.html")["plan"].is_null()) << "no start is in this log";
    EXPECT_TRUE(data("run/report.html")["curves"]["grad_norm"]["mean"][1].is_null());
}

TEST_F(RunReport, AnEndBelongsToTheStartBeforeIt) {
    std::filesystem::create_directory(path("run"));
    const std::string start = "{\"step\":0,\"time\":1,\"plan\":{},\"settings\":\"\"}\n";
    put("run/log.jsonl", start + step(1, 0) + "{\"step\":1,\"peak_bytes\":7}\n");
    EXPECT_EQ(read_run_history(path("run/log.jsonl")).end["peak_bytes"], 7);
    put("run/log.jsonl", start + step(1, 0) + "{\"step\":1,\"peak_bytes\":7}\n" + start);
    EXPECT_TRUE(read_run_history(path("run/log.jsonl")).end.is_null()) << "still running";
}

TEST_F(RunReport, NothingOfTheLogBecomesMarkup) {
    std::filesystem::create_directory(path("run"));
    const std::string evil = "</script><script>alert(1)</script><!-- & \\u2028 \xff";
    put("run/log.jsonl", "{\"step\":0,\"time\":\"" + evil + "\",\"plan\":{\"model\":\"" + evil +
                             "\"},\"settings\":\"" + evil + "\"}\n" + step(1, 0) +
                             "{\"step\":1,\"state_digest\":\"" + evil + "\"}\n");
    ASSERT_EQ(report("run"), 0) << error_;
    // A byte that is not UTF-8 makes a broken line.
    EXPECT_NE(output_.find("2 of 3 lines are broken"), std::string::npos) << output_;
    const std::string clean = evil.substr(0, evil.size() - 2);
    put("run/log.jsonl", "{\"step\":0,\"time\":\"" + clean + "\",\"plan\":{\"model\":\"" + clean +
                             "\"},\"settings\":\"" + clean + "\"}\n" + step(1, 0) +
                             "{\"step\":1,\"state_digest\":\"" + clean + "\"}\n");
    ASSERT_EQ(report("run"), 0) << error_;
    std::string page = contents_of(path("run/report.html"));
    EXPECT_EQ(data("run/report.html")["plan"]["model"], nlohmann::json::parse("\"" + clean + "\""));
    EXPECT_EQ(page.find("alert(1)</"), std::string::npos);
    EXPECT_EQ(page.find("<script>alert"), std::string::npos);
    const std::string frame = kReportPage;
    const auto count = [](const std::string& text, char c) {
        return std::count(text.begin(), text.end(), c);
    };
    for (const char c : {'<', '>', '&'}) EXPECT_EQ(count(page, c), count(frame, c)) << c;
    for (const char c : data("run/report.html").dump(-1, ' ', true)) EXPECT_GE(c, ' ');
}

TEST_F(RunReport, WhatIsWrongIsSaid) {
    std::filesystem::create_directory(path("run"));
    put("file", "x");
    const auto fails = [&](const std::string& arguments, int code, const std::string& part) {
        EXPECT_EQ(report(arguments), code) << arguments << error_;
        EXPECT_EQ(error_.rfind("error: ", 0), 0u) << error_;
        EXPECT_NE(error_.find(part), std::string::npos) << arguments << error_;
    };
    fails("", 2, "DIR is required");
    fails("run more", 2, "more");
    fails("run --color", 2, "--color");
    fails("none", 2, "none: no such folder");
    fails("file", 2, "file is a file");
    fails("run", 4, "run/log.jsonl: No such file");
    put("run/log.jsonl", "one\ntwo\n");
    fails("run", 2, "run/log.jsonl: 2 lines, none of which is plumb-train's");
    put("run/log.jsonl", step(1, 0));
    fails("run --output=none/page.html", 4, "none/page.html: No such file");
    fails("run --output=/dev/full", 4, "/dev/full: No space left");
}

TEST_F(RunReport, ARunFileIsStillRequiredToTrain) {
    const std::string command =
        "cd " + folder_ + " && " PLUMB_BIN_DIR "/plumb-train 2>stderr.txt >stdout.txt";
    EXPECT_EQ(WEXITSTATUS(std::system(command.c_str())), 2);
    EXPECT_EQ(contents_of(path("stderr.txt")),
              "error: FILE is required (see plumb-train --help)\n");
}

}  // namespace
}  // namespace plumb
