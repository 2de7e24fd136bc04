#include "trainer/lr_schedule.h"

#include <gtest/gtest.h>

namespace plumb {
namespace {

TrainSpec spec(LrSchedule schedule) {
    TrainSpec train;
    train.steps = 110;
    train.lr = 1.0;
    train.min_lr = 0.1;
    train.warmup_steps = 10;
    train.lr_schedule = schedule;
    train.decay_steps = 20;
    return train;
}

TEST(LrSchedule, WarmUpIsLinearAndEndsAtLr) {
    for (const LrSchedule schedule :
         {LrSchedule::cosine, LrSchedule::linear, LrSchedule::constant, LrSchedule::wsd}) {
        const TrainSpec train = spec(schedule);
        EXPECT_DOUBLE_EQ(learning_rate(train, 0), 0.1);
        EXPECT_DOUBLE_EQ(learning_rate(train, 4), 0.5);
        EXPECT_DOUBLE_EQ(learning_rate(train, 9), 1.0);
    }
}

TEST(LrSchedule, WithoutWarmUpTheFirstStepIsAlreadyOnTheCurve) {
    TrainSpec train = spec(LrSchedule::linear);
    train.warmup_steps = 0;
    train.steps = 10;
    EXPECT_DOUBLE_EQ(learning_rate(train, 0), 0.1 + 0.9 * 0.9);
    train.lr_schedule = LrSchedule::constant;
    EXPECT_DOUBLE_EQ(learning_rate(train, 0), 1.0);
}

TEST(LrSchedule, CosineIsHalfWayInTheMiddleAndMinLrInTheLastStep) {
    const TrainSpec train = spec(LrSchedule::cosine);
    EXPECT_NEAR(learning_rate(train, 34), 0.1 + 0.9 * 0.8535533905932737, 1e-15);  // cos(pi/4)
    EXPECT_NEAR(learning_rate(train, 59), 0.55, 1e-15);
    EXPECT_DOUBLE_EQ(learning_rate(train, 109), 0.1);
}

TEST(LrSchedule, LinearFallsEvenly) {
    const TrainSpec train = spec(LrSchedule::linear);
    EXPECT_NEAR(learning_rate(train, 10), 1.0 - 0.9 * 0.01, 1e-15);
    EXPECT_NEAR(learning_rate(train, 34), 1.0 - 0.9 * 0.25, 1e-15);
    EXPECT_DOUBLE_EQ(learning_rate(train, 109), 0.1);
}

TEST(LrSchedule, ConstantNeverFalls) {
    const TrainSpec train = spec(LrSchedule::constant);
    for (const int64_t step : {10, 50, 109, 1000}) EXPECT_EQ(learning_rate(train, step), 1.0);
}

TEST(LrSchedule, WsdIsConstantThenFallsOverItsDecaySteps) {
    const TrainSpec train = spec(LrSchedule::wsd);
    EXPECT_EQ(learning_rate(train, 10), 1.0);
    EXPECT_EQ(learning_rate(train, 89), 1.0);
    EXPECT_NEAR(learning_rate(train, 90), 1.0 - 0.9 / 20, 1e-15);
    EXPECT_NEAR(learning_rate(train, 99), 0.55, 1e-15);
    EXPECT_DOUBLE_EQ(learning_rate(train, 109), 0.1);
}

TEST(LrSchedule, WsdNeverFallsDuringWarmUp) {
    TrainSpec train = spec(LrSchedule::wsd);
    train.decay_steps = 200;  // longer than the run: falls from the end of the warm-up
    EXPECT_DOUBLE_EQ(learning_rate(train, 8), 0.9);
    EXPECT_NEAR(learning_rate(train, 10), 1.0 - 0.9 * 0.01, 1e-15);
    EXPECT_DOUBLE_EQ(learning_rate(train, 109), 0.1);
}

TEST(LrSchedule, StaysAtItsEndBeyondTheLastStep) {
    for (const LrSchedule schedule : {LrSchedule::cosine, LrSchedule::linear, LrSchedule::wsd}) {
        EXPECT_EQ(learning_rate(spec(schedule), 110), 0.1);
        EXPECT_EQ(learning_rate(spec(schedule), 100000), 0.1);
    }
}

TEST(LrSchedule, ARunThatIsAllWarmUpNeverDividesByZero) {
    TrainSpec train = spec(LrSchedule::cosine);
    train.steps = train.warmup_steps = 5;
    EXPECT_DOUBLE_EQ(learning_rate(train, 4), 1.0);
    EXPECT_DOUBLE_EQ(learning_rate(train, 5), 0.1);
}

}  // namespace
}  // namespace plumb
