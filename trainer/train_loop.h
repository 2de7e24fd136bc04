// The static training loop: fills the io rows, runs the entries of the step phase, reports; between
// steps it evaluates, samples, saves and looks for a request to stop. It runs after seal and
// allocates nothing. A save runs beside the steps that follow it, whose updates wait until it has
// passed their units; it is reported in the step in which it ends, and one that is due before that
// waits. A step whose gradients are not finite changes no weight and no moment (adamw sees to
// that), is counted, and the third in a row ends the run: the last good step is then saved as it
// was. In fp16 such a step makes the loss scale fall, and only those at a loss scale of 1 count
// towards the three. On a GPU the next step is issued before the result of the one in progress is
// known, unless something comes between them.
// Path: hot.
#pragma once

#include "runtime/engine/background_save.h"
#include "runtime/engine/closing_report.h"
#include "runtime/engine/data_loader.h"
#include "trainer/step_log.h"
#include "trainer/stop_request.h"
#include "trainer/text_sampler.h"

namespace plumb {

// The step in which a run ends unless it is asked to stop: train.steps, or train.stop_at when that
// comes first.
int64_t last_step(const TrainSpec& train) noexcept;

struct TrainParts {
    Session& session;
    BackgroundSave* saver;  // nullptr: checkpoint.every is 0
    const DataLoader& data;
    const DataLoader* valid;  // nullptr: no evaluation
    TextSampler* sampler;     // nullptr: no samples
    StepLog& log;
    StopRequest& stop;
    PeakMemory& peak_memory;
    double peak_flops;  // mfu is over it; 0: not known
};

enum class TrainEnd : uint8_t { finished, stopped, not_finite };

struct TrainResult {
    TrainEnd end = TrainEnd::finished;
    bool last_save_failed = false;
    Path last_saved = {};  // empty: none
};

class TrainLoop {
  public:
    // `record` is where the run stands; `last_saved` the checkpoint it was resumed from, or empty.
    TrainLoop(const TrainParts& parts, const RunRecord& record,
              const std::string& last_saved) noexcept;

    TrainResult run() noexcept;
    const RunRecord& record() const { return record_; }

  private:
    double fill_rows() noexcept;
    void set_scalars(double weight_sum) noexcept;
    void run_entries() noexcept;
    void issue_step() noexcept;
    void fetch_results() noexcept;
    void finish_step() noexcept;
    bool is_pause(int64_t step) const noexcept;
    bool may_run_ahead() noexcept;
    void read_loss_scale() noexcept;
    void evaluate_now() noexcept;
    void restore_loss_scale() noexcept;
    void save(const RunRecord& record) noexcept;
    void report_save() noexcept;

    TrainParts parts_;
    const RunConfig& config_;
    RunRecord record_;
    RunRecord good_;      // after the last step that was not skipped
    int64_t saved_step_;  // whose state is on disk, or the start's
    TrainResult result_;
    int64_t last_step_;
    int64_t skipped_in_a_row_ = 0;
    double step_flops_;
    double start_s_ = 0;
    int64_t start_step_;
    int64_t start_skipped_;
    // Steps begun and not yet finished, the oldest first: at most one, or on a GPU two.
    struct IssuedStep {
        double begin_s = 0;
        double weight_sum = 0;
        double lr = 0;
    };
    IssuedStep in_progress_[2];
    int32_t issued_ = 0;
    double last_end_s_ = 0;
};

}  // namespace plumb
