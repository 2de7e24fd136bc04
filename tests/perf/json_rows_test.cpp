#include "perf/json_rows.h"

#include <gtest/gtest.h>

#include <limits>

namespace plumb::testing {
namespace {

TEST(JsonFormat, ANumberThatJsonDoesNotHaveIsNull) {
    const double nan = std::numeric_limits<double>::quiet_NaN();
    const double inf = std::numeric_limits<double>::infinity();
    EXPECT_EQ(json_format(R"({{"a": "{}", "b": {}, "c": {:.2f}, "d": {:.6g}, "e": {:.2f}}})", "nan",
                          7, nan, -inf, 0.125),
              R"({"a": "nan", "b": 7, "c": null, "d": null, "e": 0.12})");
}

}  // namespace
}  // namespace plumb::testing
