// Reads tests/golden/<name>.json, made by scripts/make_goldens.py (which documents the fields).
// Path: cold.
#pragma once

#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "runtime/base/error.h"
#include "runtime/base/types.h"
#include "tests/source_path.h"

namespace plumb {

struct GoldenParameter {
    std::string name;  // canonical
    std::vector<int64_t> shape;
    std::vector<std::pair<int64_t, double>> samples;  // index, initial value
    double initial_sum;                               // exact
    double initial_square_sum;                        // exact
    double gradient_norm;  // first step, before clipping; NaN where the true gradient is zero
    double final_sum;      // NaN, as the next, for key biases
    double final_square_sum;

    int64_t elements() const {
        int64_t count = 1;
        for (const int64_t dim : shape) count *= dim;
        return count;
    }
};

// One batch of golden_token(step, 0 .. sequences * sequence_length - 1) and its logits.
struct GoldenForward {
    int64_t step, sequences, sequence_length;
    std::vector<int32_t> tokens;
    std::vector<double> logits;  // [sequences * sequence_length, vocabulary]
};

// AdamW from the golden weights; sequences and sequence_length are of one micro-batch.
struct GoldenTraining {
    int64_t steps, micro_batches, sequences, sequence_length, warmup_steps;
    double lr, beta1, beta2, eps, weight_decay, clip;
    std::vector<double> loss, grad_norm, lr_per_step;  // one per step; the norm before clipping
};

struct Golden {
    std::string config;  // text of a HF config.json
    int64_t vocab_size;
    std::vector<GoldenParameter> parameters;
    GoldenForward forward;
    GoldenTraining training;

    const GoldenParameter& parameter(const std::string& name) const {
        for (const GoldenParameter& p : parameters)
            if (p.name == name) return p;
        throw Error(ExitCode::bad_input, "no golden parameter " + name);
    }
};

// `name` is "gpt2", "llama" or "llama_bias". Throws when the file is missing or malformed.
inline Golden read_golden(const std::string& name) {
    const std::string path = source_path("tests/golden/" + name + ".json");
    std::ifstream file(path);
    if (!file) throw Error(ExitCode::io, "cannot open " + path);
    const nlohmann::json json = nlohmann::json::parse(file);
    const auto number_or_nan = [](const nlohmann::json& value) {
        return value.is_null() ? std::numeric_limits<double>::quiet_NaN() : value.get<double>();
    };
    Golden golden;
    golden.config = json.at("config").dump();
    golden.vocab_size = json.at("config").at("vocab_size").get<int64_t>();
    for (const nlohmann::json& p : json.at("parameters"))
        golden.parameters.push_back(
            {p.at("name").get<std::string>(), p.at("shape").get<std::vector<int64_t>>(),
             p.at("samples").get<std::vector<std::pair<int64_t, double>>>(),
             p.at("initial_sum").get<double>(), p.at("initial_square_sum").get<double>(),
             number_or_nan(p.at("gradient_norm")), number_or_nan(p.at("final_sum")),
             number_or_nan(p.at("final_square_sum"))});
    const nlohmann::json& f = json.at("forward");
    golden.forward = {f.at("step").get<int64_t>(),
                      f.at("sequences").get<int64_t>(),
                      f.at("sequence_length").get<int64_t>(),
                      f.at("tokens").get<std::vector<int32_t>>(),
                      {}};
    for (const nlohmann::json& row : f.at("logits"))
        for (const nlohmann::json& value : row)
            golden.forward.logits.push_back(value.get<double>());
    const nlohmann::json& t = json.at("training");
    const auto count = [&](const char* key) { return t.at(key).get<int64_t>(); };
    const auto real = [&](const char* key) { return t.at(key).get<double>(); };
    const auto list = [&](const char* key) { return t.at(key).get<std::vector<double>>(); };
    golden.training = {count("steps"),        count("micro_batches"),
                       count("sequences"),    count("sequence_length"),
                       count("warmup_steps"), real("lr"),
                       real("beta1"),         real("beta2"),
                       real("eps"),           real("weight_decay"),
                       real("clip"),          list("loss"),
                       list("grad_norm"),     list("lr_per_step")};
    return golden;
}

}  // namespace plumb
