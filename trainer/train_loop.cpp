#include "trainer/train_loop.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>

#include "runtime/engine/evaluate.h"
#include "trainer/lr_schedule.h"

namespace plumb {

namespace {

constexpr int64_t kSkippedInARowMax = 3;

double now_s() noexcept {
    return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch())
        .count();
}

bool due(int64_t step, int64_t every) noexcept {
    return every > 0 && step % every == 0;
}

}  // namespace

int64_t last_step(const TrainSpec& train) noexcept {
    return train.stop_at > 0 ? std::min(train.stop_at, train.steps) : train.steps;
}

TrainLoop::TrainLoop(const TrainParts& parts, const RunRecord& record,
                     const std::string& last_saved) noexcept
    : parts_(parts),
      config_(parts.session.config()),
      record_(record),
      good_(record),
      saved_step_(record.step),
      last_step_(last_step(config_.run.train)),
      step_flops_(flops_per_token(config_.model, config_.run.batch.sequence_length) *
                  static_cast<double>(config_.run.batch.step_tokens())),
      start_step_(record.step),
      start_skipped_(record.skipped_steps) {
    std::snprintf(result_.last_saved.text, sizeof result_.last_saved.text, "%s",
                  last_saved.c_str());
}

TrainResult TrainLoop::run() noexcept {
    const TrainSpec& train = config_.run.train;
    start_s_ = now_s();
    read_loss_scale();
    parts_.log.progress(static_cast<double>(record_.step));
    while (record_.step < last_step_) {
        if (issued_ == 0) issue_step();
        if (may_run_ahead()) issue_step();
        finish_step();
        if (skipped_in_a_row_ == kSkippedInARowMax) {
            result_.end = TrainEnd::not_finite;
            report_save();
            // A save since the last good step has its weights and moments.
            if (parts_.saver != nullptr && saved_step_ < good_.step) {
                restore_loss_scale();
                save(good_);
            }
            break;
        }
        // Whoever asks the run to stop may not wait for an evaluation.
        const char* asked = parts_.stop.asked();
        if (issued_ > 0) continue;
        if (parts_.valid != nullptr && asked == nullptr &&
            (due(record_.step, train.eval_every) || record_.step == train.steps))
            evaluate_now();
        const bool last = record_.step == last_step_;
        if (parts_.saver != nullptr &&
            (last || asked != nullptr || due(record_.step, config_.run.checkpoint.every)))
            save(record_);
        parts_.peak_memory.sample();
        if (asked == nullptr) continue;
        report_save();
        parts_.stop.honoured();
        if (last) break;
        parts_.log.say("stopped by {} after step {} of {}", asked, record_.step, train.steps);
        result_.end = TrainEnd::stopped;
        break;
    }
    report_save();
    if (result_.end == TrainEnd::finished && last_step_ < train.steps)
        parts_.log.say("stopped at train.stop_at = {} of {} steps", last_step_, train.steps);
    parts_.log.finish();
    return result_;
}

// Whether anything but the next step may come after step `step`.
bool TrainLoop::is_pause(int64_t step) const noexcept {
    const TrainSpec& train = config_.run.train;
    return step >= last_step_ || (parts_.valid != nullptr && due(step, train.eval_every)) ||
           (parts_.saver != nullptr && due(step, config_.run.checkpoint.every));
}

// Whether the step after the one in progress may be issued before that one's result is known.
bool TrainLoop::may_run_ahead() noexcept {
    return parts_.session.executor().runs_ahead() && issued_ == 1 && !is_pause(record_.step + 1) &&
           skipped_in_a_row_ + 1 < kSkippedInARowMax && parts_.stop.asked() == nullptr;
}

double TrainLoop::fill_rows() noexcept {
    const BatchSpec& batch = config_.run.batch;
    const int64_t first = record_.sequences_consumed + issued_ * batch.global_batch;
    double weight_sum = 0;
    for (int64_t m = 0; m < batch.micro_batch_count(); ++m)
        weight_sum += fill_io_row(parts_.session, parts_.data, first + m * batch.micro_batch,
                                  static_cast<int32_t>(m));
    return weight_sum;
}

void TrainLoop::set_scalars(double weight_sum) noexcept {
    const TrainSpec& train = config_.run.train;
    StepScalars& scalars = parts_.session.executor().scalars();
    const int64_t step = record_.step + issued_;
    scalars.lr = learning_rate(train, step);
    scalars.beta1 = train.beta1;
    scalars.beta2 = train.beta2;
    scalars.eps = train.eps;
    scalars.weight_decay = train.weight_decay;
    scalars.clip = train.clip;
    // The moments have seen this many gradients, the coming one included; one less if the step in
    // progress turns out to be skipped.
    const auto updates = static_cast<double>(step - record_.skipped_steps + 1);
    const double updates_skipped = issued_ == 0 ? updates : updates - 1;
    scalars.bias_correction1 = 1.0 - std::pow(train.beta1, updates);
    scalars.bias_correction2 = 1.0 - std::pow(train.beta2, updates);
    scalars.skipped_steps = static_cast<double>(record_.skipped_steps - start_skipped_);
    scalars.bias_correction1_skipped = 1.0 - std::pow(train.beta1, updates_skipped);
    scalars.bias_correction2_skipped = 1.0 - std::pow(train.beta2, updates_skipped);
    scalars.inverse_weight_sum = 1.0 / weight_sum;
    scalars.loss_scale_window = static_cast<double>(train.loss_scale_window);
}

void TrainLoop::run_entries() noexcept {
    const Program& program = parts_.session.program();
    const std::vector<Entry>& entries = program.phase(PhaseKind::step)->entries;
    Executor& executor = parts_.session.executor();
    if (parts_.saver != nullptr && parts_.saver->finished()) report_save();
    // Updates of a whole step cannot wait for a save.
    const bool saving = parts_.saver != nullptr && parts_.saver->started();
    if (executor.has_graph(entries) && !saving) return executor.run(entries);
    const auto passes =
        static_cast<double>(std::count_if(entries.begin(), entries.end(), [&](const Entry& entry) {
            return !is_update(program, entry);
        }));
    double done = 0;
    for (const Entry& entry : entries) {
        const bool updates = is_update(program, entry);
        if (updates && parts_.saver != nullptr)
            parts_.saver->wait_for(program.sections[static_cast<size_t>(entry.section)].unit);
        executor.run(entry);
        if (parts_.saver != nullptr && parts_.saver->finished()) report_save();
        if (updates || !parts_.log.has_bar() || executor.runs_ahead()) continue;
        done += 1.0 / passes;
        parts_.log.progress(static_cast<double>(record_.step) + done);
    }
}

// Begins the step after those issued already.
void TrainLoop::issue_step() noexcept {
    Executor& executor = parts_.session.executor();
    const IoTensors& io = parts_.session.program().io;
    IssuedStep& step = in_progress_[issued_];
    step.begin_s = now_s();
    executor.begin_input();
    step.weight_sum = fill_rows();
    set_scalars(step.weight_sum);
    step.lr = executor.scalars().lr;
    executor.send_rows(0, static_cast<int32_t>(config_.run.batch.micro_batch_count()));
    executor.send(io.scalars);
    executor.clear(io.loss);
    run_entries();
    // The results of the step before are still to be read where these will lie.
    if (issued_ == 0) fetch_results();
    ++issued_;
}

void TrainLoop::fetch_results() noexcept {
    const IoTensors& io = parts_.session.program().io;
    for (const TensorId id : {io.loss, io.clip, io.loss_scale})
        if (id != kNoTensor) parts_.session.executor().fetch(id);
}

// As initialised or loaded.
void TrainLoop::read_loss_scale() noexcept {
    const TensorId id = parts_.session.program().io.loss_scale;
    if (id == kNoTensor) return;
    Executor& executor = parts_.session.executor();
    executor.fetch(id);
    executor.wait();
    record_.loss_scale = static_cast<double>(executor.data<float>(id)[0]);
    record_.loss_scale_good_steps = static_cast<int64_t>(executor.data<float>(id)[1]);
}

// Waits for the oldest step in progress and reports it.
void TrainLoop::finish_step() noexcept {
    const BatchSpec& batch = config_.run.batch;
    Executor& executor = parts_.session.executor();
    const IoTensors& io = parts_.session.program().io;
    executor.wait();
    const double end_s = now_s();
    const IssuedStep step = in_progress_[0];
    const double loss = *executor.data<double>(io.loss) / step.weight_sum;
    const double* clip = executor.data<double>(io.clip);
    const double grad_norm = clip[1];
    const bool finite = clip[2] != 0;
    // A step skipped while the scale still falls is the scale's way of finding its place.
    const bool scale_falls = io.loss_scale != kNoTensor && record_.loss_scale > 1;
    skipped_in_a_row_ = finite ? 0 : skipped_in_a_row_ + (scale_falls ? 0 : 1);
    if (io.loss_scale != kNoTensor) {
        const float* loss_scale = executor.data<float>(io.loss_scale);
        record_.loss_scale = static_cast<double>(loss_scale[0]);
        record_.loss_scale_good_steps = static_cast<int64_t>(loss_scale[1]);
    }
    in_progress_[0] = in_progress_[1];
    if (--issued_ > 0) fetch_results();
    ++record_.step;
    record_.sequences_consumed += batch.global_batch;
    record_.tokens_consumed += batch.step_tokens();
    if (finite)
        good_ = record_;
    else
        ++record_.skipped_steps;

    // A step issued ahead begins when the one before has ended.
    const double seconds = end_s - std::max(step.begin_s, last_end_s_);
    last_end_s_ = end_s;
    StepLine line;
    line.step = record_.step;
    line.tokens = record_.tokens_consumed;
    line.loss = loss;
    line.grad_norm = finite ? grad_norm : std::nan("");
    line.lr = step.lr;
    line.step_ms = seconds * 1e3;
    line.tokens_per_s = static_cast<double>(batch.step_tokens()) / seconds;
    line.mfu = parts_.peak_flops > 0 ? step_flops_ / seconds / parts_.peak_flops : std::nan("");
    line.skipped = record_.skipped_steps;
    line.skipped_now = !finite;
    line.loss_scale = record_.loss_scale;
    // Evaluations and saves so far are in the mean.
    line.left_s = (end_s - start_s_) / static_cast<double>(record_.step - start_step_) *
                  static_cast<double>(last_step_ - record_.step);
    parts_.log.step(line);
    parts_.peak_memory.sample();
}

void TrainLoop::evaluate_now() noexcept {
    const double begin_s = now_s();
    const double loss = evaluate(parts_.session, *parts_.valid, config_.run.train.eval_batches);
    parts_.log.evaluation(record_.step, loss, now_s() - begin_s);
    if (parts_.sampler != nullptr) parts_.log.sample(record_.step, parts_.sampler->sample());
}

// All that the steps skipped since the last good one have changed.
void TrainLoop::restore_loss_scale() noexcept {
    const TensorId id = parts_.session.program().io.loss_scale;
    if (id == kNoTensor) return;
    Executor& executor = parts_.session.executor();
    executor.begin_input();
    float* loss_scale = executor.data<float>(id);
    loss_scale[0] = static_cast<float>(good_.loss_scale);
    loss_scale[1] = static_cast<float>(good_.loss_scale_good_steps);
    executor.send(id);
    executor.run(std::span<const Entry>());  // so that the save finds it there
    executor.finish();
}

// As the state is now, though it is written later.
void TrainLoop::save(const RunRecord& record) noexcept {
    parts_.saver->wait_until_finished();
    report_save();
    parts_.saver->start(record);
}

// Of the save begun last, when that has not been done yet; waits for its end.
void TrainLoop::report_save() noexcept {
    if (parts_.saver == nullptr || !parts_.saver->started()) return;
    const SaveOutcome& save = parts_.saver->finish();
    result_.last_save_failed = !save.status.ok();
    if (!save.status.ok()) {
        parts_.log.save_failed(save.record.step, save.status, result_.last_saved.text);
        return;
    }
    saved_step_ = save.record.step;
    result_.last_saved = save.report.directory;
    parts_.log.saved(save.record.step, save.report);
    if (!save.pruned.ok())
        parts_.log.say("old checkpoints were not removed: {}", save.pruned.message);
}

}  // namespace plumb
