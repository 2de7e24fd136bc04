// Runs a body on ranks that are processes of their own, and says what they printed.
// Path: cold.
#pragma once

#include <gtest/gtest.h>

#include "runtime/comm/start.h"

namespace plumb {

struct RanksOutcome {
    int code = 0;
    std::string errors;  // what all of them wrote to stderr
};

// A rank whose body has failed expectations ends with code 99.
inline RanksOutcome run_ranks(int32_t count, const std::function<void(World&)>& body,
                              double timeout_s = 20) {
    testing::internal::CaptureStderr();
    RanksOutcome outcome;
    outcome.code = run_local_ranks(count, {timeout_s, true}, [&](World& world) {
        return run_main([&] {
            body(world);
            return testing::Test::HasFailure() ? 99 : 0;
        });
    });
    outcome.errors = testing::internal::GetCapturedStderr();
    return outcome;
}

}  // namespace plumb
