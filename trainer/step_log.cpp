#include "trainer/step_log.h"

#include <fcntl.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <fstream>

#include "runtime/base/error.h"

namespace plumb {

namespace {

// A double as JSON: the shortest text that reads back as the same number, null when not finite.
struct JsonNumber {
    explicit JsonNumber(double value) noexcept {
        if (std::isfinite(value)) *fmt::format_to_n(text, sizeof text - 1, "{}", value).out = '\0';
    }
    char text[32] = "null";
};

// Which of the many not-a-numbers it is tells a user nothing.
double without_sign_of_nan(double value) noexcept {
    return std::isnan(value) ? std::fabs(value) : value;
}

[[noreturn]] void throw_io(const std::string& path) {
    throw Error(ExitCode::io, path + ": " + std::strerror(errno));
}

// The lines of an earlier log up to `last_step`. What is no line of ours, such as one cut short
// when the machine went down, is dropped.
std::string lines_until(const std::string& path, int64_t last_step) {
    std::ifstream file(path, std::ios::binary);
    std::string kept, text;
    while (std::getline(file, text)) {
        long long step = 0;
        const bool whole = !file.eof() && !text.empty() && text.back() == '}' &&
                           std::sscanf(text.c_str(), "{\"step\":%lld,", &step) == 1;
        if (whole && step <= last_step) kept += text + "\n";
    }
    return kept;
}

// Replaces the file as a whole, so that no moment has half a log.
void replace_file(const std::string& path, const std::string& content) {
    const std::string temporary = path + ".tmp";
    const int fd = ::open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (fd < 0) throw_io(temporary);
    const bool written =
        write_all(fd, content.data(), static_cast<int64_t>(content.size())) && ::fsync(fd) == 0;
    if (::close(fd) != 0 || !written) throw_io(temporary);
    if (::rename(temporary.c_str(), path.c_str()) != 0) throw_io(path);
}

int64_t digit_count(int64_t number) noexcept {
    int64_t digits = 1;
    while (number >= 10) {
        number /= 10;
        ++digits;
    }
    return digits;
}

int terminal_columns() noexcept {
    struct winsize size {};
    if (::ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) != 0 || size.ws_col == 0) return 80;
    return size.ws_col;
}

}  // namespace

ShortText short_count(double count) noexcept {
    static constexpr const char* kUnits[] = {"", "K", "M", "G", "T"};
    size_t unit = 0;
    // 999.5 would print as 1000.
    while (count >= 999.5 && unit + 1 < std::size(kUnits)) {
        count /= 1000;
        ++unit;
    }
    const int decimals = unit == 0 || count >= 99.95 ? 0 : count >= 9.995 ? 1 : 2;
    ShortText text;
    std::snprintf(text.text, sizeof text.text, "%.*f%s", decimals, count, kUnits[unit]);
    return text;
}

ShortText short_time(double seconds) noexcept {
    // Beyond a century, or not a number, an estimate says nothing.
    if (!(seconds < 3.2e9)) return {"?"};
    const auto total = std::llround(std::max(seconds, 0.0));
    const auto minutes = total / 60, hours = minutes / 60, days = hours / 24;
    ShortText text;
    const size_t size = sizeof text.text;
    if (days > 0)
        std::snprintf(text.text, size, "%lldd%02lldh", days, hours % 24);
    else if (hours > 0)
        std::snprintf(text.text, size, "%lldh%02lldm", hours, minutes % 60);
    else if (minutes > 0)
        std::snprintf(text.text, size, "%lldm%02llds", minutes, total % 60);
    else
        std::snprintf(text.text, size, "%llds", total);
    return text;
}

StepLog::StepLog(const std::string& folder, int64_t first_step, int64_t last_step,
                 int64_t log_every, EventFile* events)
    : path_(folder + "/log.jsonl"),
      first_step_(first_step),
      last_step_(last_step),
      log_every_(log_every),
      events_(events),
      bar_(::isatty(STDOUT_FILENO) == 1),
      done_(static_cast<double>(first_step)) {
    if (::access(path_.c_str(), F_OK) == 0) {
        if (first_step > 0)
            replace_file(path_, lines_until(path_, first_step));
        else if (::rename(path_.c_str(), (path_ + ".old").c_str()) != 0)
            throw_io(path_);
    }
    fd_ = ::open(path_.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
    if (fd_ < 0) throw_io(path_);
}

StepLog::~StepLog() {
    clear_bar();
    ::close(fd_);
}

template <typename... Args>
void StepLog::json(fmt::format_string<Args...> format, Args&&... args) noexcept {
    char text[512];
    const auto result = fmt::format_to_n(text, sizeof text, format, std::forward<Args>(args)...);
    CHECK(result.size <= sizeof text);
    json_line({text, result.size});
}

void StepLog::json_line(std::string_view line) noexcept {
    check_file(write_all(fd_, line.data(), static_cast<int64_t>(line.size())), path_,
               &json_failed_);
}

void StepLog::event(int64_t step, std::initializer_list<Scalar> scalars) noexcept {
    if (events_ != nullptr)
        check_file(events_->write(step, scalars), events_->path(), &events_failed_);
}

void StepLog::check_file(bool written, const std::string& path, bool* failed) noexcept {
    if (written || *failed) return;
    *failed = true;
    const int error = errno;
    clear_bar();
    print_line(STDERR_FILENO, "warning: {}: errno {}; training goes on without this log", path,
               error);
}

void StepLog::started(std::string_view line) noexcept {
    json_line(line);
}

void StepLog::step(const StepLine& line) noexcept {
    loss_ = without_sign_of_nan(line.loss);
    left_s_ = line.left_s;
    const bool due = line.step % log_every_ == 0 || line.step == first_step_ + 1 ||
                     line.step == last_step_ || line.skipped_now;
    char share_of_peak[32] = "";
    if (std::isfinite(line.mfu))
        *fmt::format_to_n(share_of_peak, sizeof share_of_peak - 1, "{:.1f}% of peak  ",
                          100 * line.mfu)
             .out = '\0';
    if (due)
        say("step {:>{}}/{}  {} tok  loss {:.4f}  norm {:.3g}  lr {:.2e}  {:.{}f} ms  {} tok/s  "
            "{}eta {}",
            line.step, digit_count(last_step_), last_step_,
            short_count(static_cast<double>(line.tokens)).text, loss_,
            without_sign_of_nan(line.grad_norm), line.lr, line.step_ms, line.step_ms < 100 ? 1 : 0,
            short_count(line.tokens_per_s).text, share_of_peak, short_time(line.left_s).text);
    if (line.skipped_now)
        say("  skipped: the gradients of step {} are not finite; nothing was changed ({} skipped "
            "so far)",
            line.step, line.skipped);
    if (line.skipped_now && line.loss_scale > 0) say("  the loss scale is now {}", line.loss_scale);
    char loss_scale[48] = "";
    if (line.loss_scale > 0)
        *fmt::format_to_n(loss_scale, sizeof loss_scale - 1, ",\"loss_scale\":{}", line.loss_scale)
             .out = '\0';
    json(
        "{{\"step\":{},\"tokens\":{},\"loss\":{},\"grad_norm\":{},\"lr\":{},\"step_ms\":{},"
        "\"tokens_per_s\":{},\"mfu\":{},\"skipped\":{}{}}}\n",
        line.step, line.tokens, JsonNumber(line.loss).text, JsonNumber(line.grad_norm).text,
        JsonNumber(line.lr).text, JsonNumber(line.step_ms).text, JsonNumber(line.tokens_per_s).text,
        JsonNumber(line.mfu).text, line.skipped, loss_scale);
    event(line.step, {{"loss", line.loss},
                      {"grad_norm", line.grad_norm},
                      {"lr", line.lr},
                      {"tokens_per_s", line.tokens_per_s},
                      {"mfu", line.mfu}});
    progress(static_cast<double>(line.step));
}

void StepLog::evaluation(int64_t step, double valid_loss, double seconds) noexcept {
    say("evaluation after step {}: valid loss {:.4f}  ({:.2f} s)", step, valid_loss, seconds);
    json("{{\"step\":{},\"valid_loss\":{}}}\n", step, JsonNumber(valid_loss).text);
    event(step, {{"valid_loss", valid_loss}});
}

void StepLog::sample(int64_t step, const TextSample& sample) noexcept {
    clear_bar();
    const auto put = [this](std::string_view text) {
        check_output(write_all(STDOUT_FILENO, text.data(), static_cast<int64_t>(text.size())));
    };
    char start[48];
    const auto end = fmt::format_to_n(start, sizeof start, "sample after step {}: \"", step);
    put({start, end.size});
    put(sample.prompt);
    put("\" -> \"");
    put(sample.text);
    put("\"\n");
}

void StepLog::saved(int64_t step, const SaveReport& report) noexcept {
    char digest[33];
    format_hash(report.digest, digest);
    say("saved step {}: {}  {:.1f} MB in {:.2f} s, stall {:.1f} ms  digest {}", step,
        report.directory.text, static_cast<double>(report.file_bytes) / 1e6, report.seconds,
        1e3 * report.stall_s, digest);
    if (report.waited_s > 0)
        say("  was due {:.1f} ms before the end of the save before it, and training waited (saves "
            "that had to wait so far: {})",
            1e3 * report.waited_s, report.waited_count);
    json(
        "{{\"step\":{},\"state_digest\":\"{}\",\"seconds\":{},\"bytes\":{},\"stall_ms\":{},"
        "\"waited_ms\":{},\"waited\":{}}}\n",
        step, digest, JsonNumber(report.seconds).text, report.file_bytes,
        JsonNumber(1e3 * report.stall_s).text, JsonNumber(1e3 * report.waited_s).text,
        report.waited_count);
    if (report.reserved || reserve_said_) return;
    reserve_said_ = true;
    say("note: the file system of {} cannot reserve space; a full disk shows in the middle of a "
        "save",
        report.directory.text);
}

void StepLog::ended(int64_t step, const PeakMemory& peak) noexcept {
    json("{{\"step\":{},\"peak_bytes\":{},\"mapped_file_bytes\":{}}}\n", step,
         peak.resident_bytes(), peak.file_bytes());
}

void StepLog::save_failed(int64_t step, const Status& status, const char* last_good) noexcept {
    clear_bar();
    print_line(STDERR_FILENO,
               "warning: STEP {} WAS NOT SAVED: {}; training goes on; the last checkpoint is {}",
               step, status.message, *last_good == '\0' ? "none" : last_good);
}

void StepLog::progress(double done) noexcept {
    done_ = done;
    if (!bar_) return;
    constexpr int kMarks = 30;
    const double share = done / static_cast<double>(std::max<int64_t>(last_step_, 1));
    const auto marks = static_cast<int>(share * kMarks);
    char text[160];
    const auto result = fmt::format_to_n(
        text, sizeof text, "\r\033[K[{:#>{}}{:.>{}}] {:.1f}%  loss {:.4f}  eta {}", "", marks, "",
        kMarks - marks, 100 * share, loss_, short_time(left_s_).text);
    constexpr int kControlBytes = 4;  // the first four take no column
    const auto size = std::min(
        {result.size, sizeof text, static_cast<size_t>(terminal_columns() - 1 + kControlBytes)});
    write_all(STDOUT_FILENO, text, static_cast<int64_t>(size));
    bar_shown_ = true;
}

void StepLog::clear_bar() noexcept {
    if (!bar_shown_) return;
    write_all(STDOUT_FILENO, "\r\033[K", 4);
    bar_shown_ = false;
}

void StepLog::check_output(bool written) noexcept {
    if (written || output_failed_) return;
    output_failed_ = true;
    const int error = errno;
    print_line(STDERR_FILENO,
               "warning: cannot write to standard output: errno {}; training goes on, and {} has "
               "every step",
               error, path_);
}

void StepLog::finish() noexcept {
    clear_bar();
}

}  // namespace plumb
