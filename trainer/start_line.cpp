#include "trainer/start_line.h"

#include <chrono>
#include <nlohmann/json.hpp>

#include "runtime/engine/numerics.h"
#include "runtime/plan/report.h"

namespace plumb {

std::string start_line(const Session& session, const std::string& name, int64_t step) {
    using Json = nlohmann::ordered_json;
    const RunConfig& config = session.config();
    ReportSubject subject;
    subject.device = session.device();
    subject.memory_bytes = config.run.run.memory;
    const auto since_1970 = std::chrono::system_clock::now().time_since_epoch();
    Json plan = Json::parse(report_json(session.program(), session.plan(), subject));
    plan["model"] = name;  // here, because a file's name need not be UTF-8
    // `step` first, as in every line: a resume finds the lines to keep by it.
    Json line = {
        {"step", step},
        {"time", std::chrono::duration_cast<std::chrono::seconds>(since_1970).count()},
        {"numerics", to_hex(numerics_hash(session))},
        {"plan", std::move(plan)},
        {"settings", settings_text(config)},
    };
    return line.dump(-1, ' ', true, Json::error_handler_t::replace) + "\n";
}

}  // namespace plumb
