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
      start_step_(record.step) {
    std::snprintf(result_.last_saved.text, sizeof result_.last_saved.text, "%s",
                  last_saved.c_str());
}

TrainResult TrainLoop::run() noexcept {
    const TrainSpec& train = config_.run.train;
    start_s_ = now_s();
    parts_.log.progress(static_cast<double>(record_.step));
    while (record_.step < last_step_) {
        step();
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

double TrainLoop::fill_rows() noexcept {
    const BatchSpec& batch = config_.run.batch;
    double weight_sum = 0;
    for (int64_t m = 0; m < batch.micro_batch_count(); ++m)
        weight_sum += fill_io_row(parts_.session, parts_.data,
                                  record_.sequences_consumed + m * batch.micro_batch,
                                  static_cast<int32_t>(m));
    return weight_sum;
}

void TrainLoop::set_scalars(double weight_sum) noexcept {
    const TrainSpec& train = config_.run.train;
    StepScalars& scalars = parts_.session.executor().scalars();
    scalars.lr = learning_rate(train, record_.step);
    scalars.beta1 = train.beta1;
    scalars.beta2 = train.beta2;
    scalars.eps = train.eps;
    scalars.weight_decay = train.weight_decay;
    scalars.clip = train.clip;
    // The moments have seen this many gradients, the coming one included.
    const auto updates = static_cast<double>(record_.step - record_.skipped_steps + 1);
    scalars.bias_correction1 = 1.0 - std::pow(train.beta1, updates);
    scalars.bias_correction2 = 1.0 - std::pow(train.beta2, updates);
    scalars.inverse_weight_sum = 1.0 / weight_sum;
    scalars.loss_scale_window = static_cast<double>(train.loss_scale_window);
}

void TrainLoop::run_entries() noexcept {
    const Program& program = parts_.session.program();
    const std::vector<Entry>& entries = program.phase(PhaseKind::step)->entries;
    const auto passes =
        static_cast<double>(std::count_if(entries.begin(), entries.end(), [&](const Entry& entry) {
            return !is_update(program, entry);
        }));
    double done = 0;
    for (const Entry& entry : entries) {
        const bool updates = is_update(program, entry);
        if (updates && parts_.saver != nullptr)
            parts_.saver->wait_for(program.sections[static_cast<size_t>(entry.section)].unit);
        parts_.session.executor().run(entry);
        if (parts_.saver != nullptr && parts_.saver->finished()) report_save();
        if (updates || !parts_.log.has_bar()) continue;
        done += 1.0 / passes;
        parts_.log.progress(static_cast<double>(record_.step) + done);
    }
}

void TrainLoop::step() noexcept {
    const BatchSpec& batch = config_.run.batch;
    Executor& executor = parts_.session.executor();
    const IoTensors& io = parts_.session.program().io;
    const double begin_s = now_s();
    const double weight_sum = fill_rows();
    set_scalars(weight_sum);
    double* loss = executor.data<double>(io.loss);
    *loss = 0;
    const float* loss_scale =
        io.loss_scale == kNoTensor ? nullptr : executor.data<float>(io.loss_scale);
    // A step skipped while the scale still falls is the scale's way of finding its place.
    const bool scale_falls = loss_scale != nullptr && loss_scale[0] > 1.0F;
    run_entries();
    const double end_s = now_s();

    const double* clip = executor.data<double>(io.clip);  // scale, norm, finite
    const bool finite = clip[2] != 0;
    skipped_in_a_row_ = finite ? 0 : skipped_in_a_row_ + (scale_falls ? 0 : 1);
    if (loss_scale != nullptr) {
        record_.loss_scale = static_cast<double>(loss_scale[0]);
        record_.loss_scale_good_steps = static_cast<int64_t>(loss_scale[1]);
    }
    ++record_.step;
    record_.sequences_consumed += batch.global_batch;
    record_.tokens_consumed += batch.step_tokens();
    if (finite)
        good_ = record_;
    else
        ++record_.skipped_steps;

    StepLine line;
    line.step = record_.step;
    line.tokens = record_.tokens_consumed;
    line.loss = *loss / weight_sum;
    line.grad_norm = finite ? clip[1] : std::nan("");
    line.lr = executor.scalars().lr;
    line.step_ms = (end_s - begin_s) * 1e3;
    line.tokens_per_s = static_cast<double>(batch.step_tokens()) / (end_s - begin_s);
    line.mfu = step_flops_ / (end_s - begin_s) / parts_.peak_flops;
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
    float* loss_scale = parts_.session.executor().data<float>(id);
    loss_scale[0] = static_cast<float>(good_.loss_scale);
    loss_scale[1] = static_cast<float>(good_.loss_scale_good_steps);
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
