#include "trainer/run_report.h"

#include <fmt/format.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <string_view>

#include "runtime/base/error.h"
#include "trainer/run_history.h"

namespace plumb {

namespace {

using Json = nlohmann::ordered_json;

constexpr std::string_view kMarker = "RUN_DATA";

// Columns, which are shorter than rows. Where no value was finite all three are null.
Json columns(const std::vector<CurveValue>& values) {
    Json first = Json::array(), last = first, mean = first, low = first, high = first;
    for (const CurvePoint& point : thinned(values, kPointsMost)) {
        const bool known = point.count > 0;
        first.push_back(point.first_step);
        last.push_back(point.last_step);
        mean.push_back(known ? Json(point.mean) : Json());
        low.push_back(known ? Json(point.low) : Json());
        high.push_back(known ? Json(point.high) : Json());
    }
    return {{"first", first}, {"last", last}, {"mean", mean}, {"low", low}, {"high", high}};
}

Json page_data(const std::string& folder, const RunHistory& history) {
    Json starts = Json::array();
    for (const Json& start : history.starts)
        starts.push_back({{"step", start["step"]}, {"time", start.value("time", Json())}});
    const Json newest = history.starts.empty() ? Json::object() : history.starts.back();
    return {
        {"folder", folder},
        {"last_step", history.last_step},
        {"last_tokens", history.last_tokens},
        {"step_count", history.loss.size()},
        {"line_count", history.line_count},
        {"broken_line_count", history.broken_line_count},
        {"curves",
         {{"loss", columns(history.loss)},
          {"valid_loss", columns(history.valid_loss)},
          {"grad_norm", columns(history.grad_norm)},
          {"lr", columns(history.lr)},
          {"tokens_per_s", columns(history.tokens_per_s)},
          {"mfu", columns(history.mfu)},
          {"loss_scale", columns(history.loss_scale)}}},
        {"skipped_steps", history.skipped_steps},
        {"saves", history.saves},
        {"starts", starts},
        {"plan", newest.value("plan", Json())},
        {"settings", newest.value("settings", Json())},
        {"end", history.end},
    };
}

// JSON in ASCII, in which no character can end or begin an element of HTML.
std::string script_text(const Json& data) {
    std::string text;
    for (const char c : data.dump(-1, ' ', true, Json::error_handler_t::replace)) {
        if (c == '<' || c == '>' || c == '&')
            text += fmt::format("\\u{:04x}", static_cast<int>(c));
        else
            text += c;
    }
    return text;
}

void check_folder(const std::string& folder) {
    std::error_code error;
    const auto status = std::filesystem::status(folder, error);
    if (!std::filesystem::exists(status))
        throw Error(ExitCode::bad_input,
                    fmt::format("{}: no such folder; give the checkpoint.dir of a run", folder));
    if (!std::filesystem::is_directory(status))
        throw Error(ExitCode::bad_input,
                    fmt::format("{} is a file; it must be the folder of a run", folder));
}

}  // namespace

std::string write_run_report(const std::string& folder, const std::string& output) {
    check_folder(folder);
    const std::string log = folder + "/log.jsonl";
    const RunHistory history = read_run_history(log);
    const int64_t whole = history.line_count - history.broken_line_count;
    if (whole == 0)
        throw Error(ExitCode::bad_input,
                    fmt::format("{}: {} lines, none of which is plumb-train's; expected an object "
                                "with a step per line",
                                log, history.line_count));
    std::string page = kReportPage;
    page.replace(page.find(kMarker), kMarker.size(), script_text(page_data(folder, history)));
    std::ofstream file(output, std::ios::binary);
    file << page << std::flush;
    if (!file) throw Error(ExitCode::io, output + ": " + std::strerror(errno));
    std::string said =
        fmt::format("wrote {}: {} steps, {} saves, {} skipped", output, history.loss.size(),
                    history.saves.size(), history.skipped_steps.size());
    if (history.broken_line_count > 0)
        said += fmt::format("\nnote: {}: {} of {} lines are broken and were passed over", log,
                            history.broken_line_count, history.line_count);
    return said;
}

}  // namespace plumb
