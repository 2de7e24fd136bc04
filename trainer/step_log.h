// What a training run says: a line per step, evaluation and save on standard output, and the same
// as one JSON object per line in `<checkpoint.dir>/log.jsonl`. On a terminal a bar with the time
// left stands below the last line; in a pipe there are plain lines only. Every line is formatted in
// a fixed buffer and written with one write(2), so the log may be used after seal. The numbers of
// steps and evaluations go to a TensorBoard event file too when there is one. A failure to write
// any of the three is said once and never stops the run.
//
// log.jsonl, by kind of line; numbers that are not finite are null:
//   {"step","time","plan","settings"}     at each start; see start_line.h
//   {"step","tokens","loss","grad_norm","lr","step_ms","tokens_per_s","mfu","skipped"}, and
//       in fp16 "loss_scale": the scale after the step
//   {"step","valid_loss"}
//   {"step","state_digest","seconds","bytes","stall_ms","waited_ms","waited"}
//   {"step","peak_bytes","mapped_file_bytes"}     at each end: what the process held at most
// A save runs beside the steps that follow, so its line may stand behind theirs. stall_ms is what
// their updates waited for it, waited_ms what it waited for the save before to end; `waited` counts
// the saves of this process that had to. `step` counts finished steps, `tokens` and `skipped` count
// since the run began.
// Path: hot.
#pragma once

#include <string>

#include "runtime/base/log.h"
#include "runtime/engine/closing_report.h"
#include "runtime/engine/state_io.h"
#include "trainer/event_file.h"
#include "trainer/text_sampler.h"

namespace plumb {

struct StepLine {
    int64_t step = 0;    // finished, this one included
    int64_t tokens = 0;  // since the run began
    double loss = 0;     // per token of the step
    double grad_norm = 0;
    double lr = 0;
    double step_ms = 0;
    double tokens_per_s = 0;
    double mfu = 0;       // model flops over the measured peak
    int64_t skipped = 0;  // steps without an update since the run began
    bool skipped_now = false;
    double loss_scale = 0;  // after the step; 0: none
    double left_s = 0;      // estimate to the end
};

// "950", "12.3K", "4.56M", "7.89G"; "42s", "3m07s", "2h05m", "3d04h".
struct ShortText {
    char text[24];
};
ShortText short_count(double count) noexcept;
ShortText short_time(double seconds) noexcept;

class StepLog {
  public:
    // Opens log.jsonl in `folder`, which exists. A run that resumes at `first_step` > 0 goes on
    // behind its lines up to that step; later ones, of a continuation now abandoned, are removed. A
    // new run keeps an earlier run's log as log.jsonl.old. Throws Error (io).
    // The first and the last step, multiples of log_every and skipped steps get a line. `events`
    // may be nullptr and outlives the log.
    StepLog(const std::string& folder, int64_t first_step, int64_t last_step, int64_t log_every = 1,
            EventFile* events = nullptr);
    ~StepLog();
    StepLog(const StepLog&) = delete;
    StepLog& operator=(const StepLog&) = delete;

    // A whole line of log.jsonl, as start_line makes it.
    void started(std::string_view line) noexcept;
    void step(const StepLine& line) noexcept;
    void evaluation(int64_t step, double valid_loss, double seconds) noexcept;
    void sample(int64_t step, const TextSample& sample) noexcept;
    void saved(int64_t step, const SaveReport& report) noexcept;
    void ended(int64_t step, const PeakMemory& peak) noexcept;
    // On standard error; `last_good` is the run's last checkpoint, empty when there is none.
    void save_failed(int64_t step, const Status& status, const char* last_good) noexcept;
    template <typename... Args>
    void say(fmt::format_string<Args...> format, Args&&... args) noexcept {
        clear_bar();
        check_output(print_line(STDOUT_FILENO, format, std::forward<Args>(args)...));
    }

    // Moves the bar; `done` in steps, parts of one included. Nothing without a terminal.
    bool has_bar() const { return bar_; }
    void progress(double done) noexcept;
    // Removes the bar.
    void finish() noexcept;

  private:
    template <typename... Args>
    void json(fmt::format_string<Args...> format, Args&&... args) noexcept;
    void json_line(std::string_view line) noexcept;
    void event(int64_t step, std::initializer_list<Scalar> scalars) noexcept;
    // After each write to one of the two files; errno is that write's.
    void check_file(bool written, const std::string& path, bool* failed) noexcept;
    void clear_bar() noexcept;
    // After each write to standard output; errno is that write's.
    void check_output(bool written) noexcept;

    std::string path_;
    int64_t first_step_;
    int64_t last_step_;
    int64_t log_every_;
    EventFile* events_;
    int fd_ = -1;
    bool bar_;
    bool bar_shown_ = false;
    bool json_failed_ = false;
    bool events_failed_ = false;
    bool output_failed_ = false;
    bool reserve_said_ = false;
    double done_ = 0;
    double left_s_ = 0;
    double loss_ = 0;
};

}  // namespace plumb
