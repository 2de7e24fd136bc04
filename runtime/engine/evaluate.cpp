#include "runtime/engine/evaluate.h"

#include <algorithm>

namespace plumb {

double fill_io_row(Session& session, const DataLoader& loader, int64_t first,
                   int32_t micro_batch) noexcept {
    const Executor& executor = session.executor();
    const IoTensors& io = session.program().io;
    const int64_t sequences = session.config().run.batch.micro_batch;
    const int64_t length = session.config().run.batch.sequence_length;
    int64_t weight = 0;
    for (int64_t s = 0; s < sequences; ++s) {
        const int64_t at = s * length;
        const SequencePlace place{executor.data<int32_t>(io.tokens, micro_batch) + at,
                                  executor.data<int32_t>(io.targets, micro_batch) + at,
                                  executor.data<float>(io.loss_weights, micro_batch) + at,
                                  executor.data<int32_t>(io.positions, micro_batch) + at,
                                  executor.data<int32_t>(io.segment_start, micro_batch) + at};
        weight += loader.fill(first + s, place);
    }
    return static_cast<double>(weight);
}

double evaluate(Session& session, const DataLoader& loader, int64_t batch_count) noexcept {
    Executor& executor = session.executor();
    const Phase* phase = session.program().phase(PhaseKind::evaluate);
    const int64_t sequences = session.config().run.batch.micro_batch;
    const TensorId loss = session.program().io.loss;
    executor.begin_input();
    executor.clear(loss);
    double weight = 0;
    for (int64_t batch = 0; batch < batch_count; ++batch) {
        if (batch * sequences >= loader.sequence_count()) break;
        executor.begin_input();
        weight += fill_io_row(session, loader, batch * sequences, 0);
        executor.send_rows(0, 1);
        executor.run(phase->entries[0]);
    }
    executor.fetch(loss);
    executor.wait();
    return *executor.data<double>(loss) / std::max(weight, 1.0);
}

}  // namespace plumb
