// Event files byte by byte, as read back by a reader that drops what TensorBoard drops, and by
// TensorBoard itself where it is installed.
#include "trainer/event_file.h"

#include <sys/resource.h>

#include <algorithm>
#include <cmath>
#include <csignal>
#include <cstring>
#include <map>

#include "formats/crc32c.h"
#include "runtime/base/error.h"
#include "tests/trainer/train_folder.h"
#include "trainer/step_log.h"

namespace plumb {
namespace {

std::string hex(const unsigned char* bytes, int64_t size) {
    std::string text;
    for (int64_t i = 0; i < size; ++i) text += fmt::format("{:02x}", bytes[i]);
    return text;
}

std::string record_hex(const Event& event) {
    unsigned char record[kRecordBytesMost];
    return hex(record, encode_record(event, record));
}

// Made with tensorboard 2.21: the serialised event_pb2.Event between its length and the masked
// CRCs of tensorboard.compat.tensorflow_stub.pywrap_tensorflow.masked_crc32c.
TEST(EventRecord, BytesAreThoseOfTensorBoard) {
    EXPECT_EQ(record_hex({.wall_time = 1700000000.25, .version = "brain.Event:2"}),
              "1800000000000000a37f4b220900001040fc54d9411a0d627261696e2e4576656e743a32338d2fe9");
    EXPECT_EQ(record_hex({.wall_time = 1700000000.25, .step = 301, .session_start = true}),
              "100000000000000095fbfe180900001040fc54d94110ad023a020801cb79b93b");
    EXPECT_EQ(
        record_hex(
            {.wall_time = 1700000000.25, .step = 300, .scalars = {{"loss", 2.5}, {"lr", 0.001}}}),
        "2600000000000000734fe3000900001040fc54d94110ac022a180a0b0a046c6f737315000020400a090a"
        "026c72156f12833a1f839730");
    EXPECT_EQ(record_hex({.wall_time = 1700000000.25, .step = 1, .scalars = {{"valid_loss", 0}}}),
              "200000000000000029eda9500900001040fc54d94110012a130a110a0a76616c69645f6c6f7373150000"
              "00008579359a");
}

// What TensorBoard would show: tag -> step -> value.
using Shown = std::map<std::string, std::map<int64_t, double>>;

// A reader of the fields that EventFile writes, with every length and CRC checked. False at a
// record that is not whole.
class EventReader {
  public:
    explicit EventReader(std::string bytes) : bytes_(std::move(bytes)) {}

    // Adds a file's events; a session start removes its step and later ones.
    void read(Shown* shown) {
        while (at_ < bytes_.size()) {
            const size_t header = at_;
            const auto length = fixed<uint64_t>();
            ASSERT_EQ(fixed<uint32_t>(), masked(header, 8));
            ASSERT_LE(length + 4, bytes_.size() - at_);
            end_ = at_ + length;
            const uint32_t expected = masked(at_, static_cast<int64_t>(length));
            read_event(shown);
            ASSERT_EQ(at_, end_);
            ASSERT_EQ(fixed<uint32_t>(), expected);
            ++count_;
        }
    }
    int count() const { return count_; }

  private:
    template <typename T>
    T fixed() {
        T value{};
        EXPECT_LE(at_ + sizeof value, bytes_.size());
        if (at_ + sizeof value <= bytes_.size())
            std::memcpy(&value, bytes_.data() + at_, sizeof value);
        at_ += sizeof value;
        return value;
    }
    uint64_t varint() {
        uint64_t value = 0;
        for (int shift = 0;; shift += 7) {
            const auto byte = fixed<uint8_t>();
            value |= uint64_t{byte & 0x7fu} << shift;
            if (byte < 0x80) return value;
        }
    }
    uint32_t masked(size_t begin, int64_t size) const {
        const uint32_t crc = crc32c(bytes_.data() + begin, size);
        return ((crc >> 15) | (crc << 17)) + 0xa282ead8u;
    }
    void read_event(Shown* shown) {
        int64_t step = 0;
        while (at_ < end_) {
            const uint64_t tag = varint();
            if (tag == (1 << 3 | 1)) {
                EXPECT_GT(fixed<double>(), 1.7e9);
            } else if (tag == (2 << 3)) {
                step = static_cast<int64_t>(varint());
            } else if (tag == (3 << 3 | 2)) {
                const uint64_t size = varint();
                EXPECT_EQ(bytes_.substr(at_, size), "brain.Event:2");
                EXPECT_EQ(count_, 0);
                at_ += size;
            } else if (tag == (7 << 3 | 2)) {
                EXPECT_EQ(varint(), 2u);
                EXPECT_EQ(fixed<uint16_t>(), 0x0108) << "status: START";
                for (auto& [name, values] : *shown)
                    values.erase(values.lower_bound(step), values.end());
            } else {
                ASSERT_EQ(tag, 5u << 3 | 2);
                read_summary(step, shown);
            }
        }
    }
    void read_summary(int64_t step, Shown* shown) {
        const uint64_t size = varint();
        const size_t end = at_ + size;
        while (at_ < end) {
            ASSERT_EQ(varint(), 1u << 3 | 2);
            const uint64_t value_size = varint();
            const size_t value_end = at_ + value_size;
            ASSERT_EQ(varint(), 1u << 3 | 2);
            const uint64_t tag_size = varint();
            const std::string name = bytes_.substr(at_, tag_size);
            at_ += tag_size;
            ASSERT_EQ(varint(), 2u << 3 | 5);
            EXPECT_TRUE((*shown)[name].emplace(step, fixed<float>()).second) << name << step;
            ASSERT_EQ(at_, value_end);
        }
    }

    std::string bytes_;
    size_t at_ = 0, end_ = 0;
    int count_ = 0;
};

class EventFiles : public TrainFolder {
  protected:
    std::vector<std::string> names(const std::string& folder = "run") const {
        std::vector<std::string> all;
        for (const auto& entry : std::filesystem::directory_iterator(path(folder)))
            if (entry.path().filename().string().rfind("events.out.tfevents.", 0) == 0)
                all.push_back(entry.path());
        std::sort(all.begin(), all.end());
        return all;
    }
    Shown shown() const {
        Shown all;
        for (const std::string& name : names()) EventReader(contents_of(name)).read(&all);
        return all;
    }
    // What log.jsonl says, as event files round it.
    Shown logged() const {
        Shown all;
        for (const char* key : {"loss", "grad_norm", "lr", "tokens_per_s", "mfu", "valid_loss"})
            for (const auto& line : log(key))
                all[key][line["step"].get<int64_t>()] = static_cast<double>(line[key].get<float>());
        return all;
    }
    // A run of 70 steps whose last checkpoint is lost, so that it goes on from step 60.
    void train_with_a_step_back() {
        const std::string events = "--train.tensorboard=true --train.eval_every=35";
        ASSERT_EQ(train(events + " --train.stop_at=70"), 0) << error_;
        std::filesystem::resize_file(path("run/" + checkpoints().back() + "/MANIFEST"), 10);
        ASSERT_EQ(train(events), 0) << error_;
        ASSERT_NE(output_.find("resumed at step 60 "), std::string::npos) << output_;
    }
};

TEST_F(EventFiles, AreMadeOnlyWhenAskedFor) {
    ASSERT_EQ(train("--train.steps=2 --train.warmup_steps=0"), 0) << error_;
    EXPECT_EQ(names().size(), 0u);
}

TEST_F(EventFiles, SayWhatTheLogSaysAlsoAfterAStepBack) {
    ASSERT_NO_FATAL_FAILURE(train_with_a_step_back());
    EXPECT_EQ(names().size(), 2u) << "one per start";
    const Shown all = shown();
    EXPECT_EQ(all, logged());
    EXPECT_EQ(all.at("loss").size(), 100u);
    EXPECT_EQ(all.at("valid_loss").size(), 3u);  // 35, 70 and the last
}

TEST_F(EventFiles, TensorBoardReadsWhatTheLogSays) {
    ASSERT_NO_FATAL_FAILURE(train_with_a_step_back());
    const std::string command = "python3 " PLUMB_SOURCE_DIR "/tests/trainer/read_events.py " +
                                path("run") + " >" + path("read.json") + " 2>" + path("read.txt");
    const int status = std::system(command.c_str());
    if (WEXITSTATUS(status) == 77 || WEXITSTATUS(status) == 127)
        GTEST_SKIP() << "python3 with the package tensorboard is needed: "
                     << contents_of(path("read.txt"));
    ASSERT_EQ(status, 0) << contents_of(path("read.txt"));
    const auto read = nlohmann::json::parse(contents_of(path("read.json")));
    Shown all;
    for (const auto& [tag, values] : read.items())
        for (const auto& value : values)
            EXPECT_TRUE(all[tag].emplace(value[0].get<int64_t>(), value[1].get<double>()).second)
                << tag << " twice at step " << value[0];
    EXPECT_EQ(all, logged());
}

TEST_F(EventFiles, SkippedStepsHaveANormThatIsNoNumber) {
    EXPECT_EQ(train("--train.lr=100 --train.min_lr=100 --train.weight_decay=100 "
                    "--train.warmup_steps=0 --train.tensorboard=true"),
              1);
    const auto norms = shown().at("grad_norm");
    EXPECT_TRUE(std::isnan(norms.rbegin()->second));
    EXPECT_FALSE(std::isnan(norms.begin()->second));
}

TEST_F(EventFiles, AFullDiskIsSaidOnceAndLeavesWholeEvents) {
    std::filesystem::create_directory(path("run"));
    struct rlimit before {};
    ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &before), 0);
    const auto old_handler = std::signal(SIGXFSZ, SIG_IGN);
    ::testing::internal::CaptureStdout();
    ::testing::internal::CaptureStderr();
    std::string events_path;
    {
        EventFile events(path("run"), 0);
        events_path = events.path();
        // The console, captured in a file, has lines of the first and last step only.
        StepLog log(path("run"), 0, 10, 100, &events);
        StepLine line;
        struct rlimit full = before;
        full.rlim_cur = 500;  // in the middle of an event
        EXPECT_EQ(::setrlimit(RLIMIT_FSIZE, &full), 0);
        for (line.step = 1; line.step <= 9; ++line.step) log.step(line);
        EXPECT_EQ(::setrlimit(RLIMIT_FSIZE, &before), 0);
        log.step(line);
    }
    std::signal(SIGXFSZ, old_handler);
    ::testing::internal::GetCapturedStdout();
    const std::string said = ::testing::internal::GetCapturedStderr();
    const std::string warning = "warning: " + events_path + ": errno 27; training goes on";
    EXPECT_NE(said.find(warning), std::string::npos) << said;
    EXPECT_EQ(std::count(said.begin(), said.end(), '\n'), 2) << "once per file\n" << said;
    const auto steps = shown().at("loss");
    EXPECT_GT(steps.size(), 1u);
    EXPECT_LT(steps.size(), 9u);
    EXPECT_EQ(steps.rbegin()->first, 10) << "goes on when there is room again";
}

TEST_F(EventFiles, AFolderThatCannotBeWrittenIsAnError) {
    try {
        const EventFile events(path("none"), 0);
        FAIL();
    } catch (const Error& error) {
        EXPECT_EQ(error.code(), ExitCode::io);
        EXPECT_NE(std::string(error.what()).find("none/events.out.tfevents."), std::string::npos);
    }
}

TEST_F(EventFiles, TwoStartsInASecondKeepTheirOrder) {
    std::filesystem::create_directory(path("run"));
    std::vector<std::string> made;
    for (int i = 0; i < 20; ++i) made.push_back(EventFile(path("run"), i).path());
    EXPECT_EQ(names(), made);
}

}  // namespace
}  // namespace plumb
