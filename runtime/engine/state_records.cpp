#include "runtime/engine/state_records.h"

namespace plumb {

std::vector<TensorRecord> state_records(const std::vector<Param>& params, bool training) {
    std::vector<TensorRecord> records;
    for (const Param& param : params) {
        const auto add = [&](const char* stream) {
            records.push_back(make_tensor_record(stream, param.name, Dtype::f32, param.shape));
        };
        add("param");
        if (!training || !param.trainable) continue;
        add("moment1");
        add("moment2");
    }
    return records;
}

}  // namespace plumb
