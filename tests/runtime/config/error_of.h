// The message of the Error that `body` throws; a failure of the test when it throws none or its
// exit code is not `code`.
// Path: cold.
#pragma once

#include <gtest/gtest.h>

#include <string>

#include "runtime/base/error.h"

namespace plumb {

template <typename Body>
std::string error_of(Body body, ExitCode code = ExitCode::bad_input) {
    try {
        body();
    } catch (const Error& error) {
        EXPECT_EQ(static_cast<int>(error.code()), static_cast<int>(code)) << error.what();
        return error.what();
    }
    ADD_FAILURE() << "no Error was thrown";
    return "";
}

}  // namespace plumb
