// The numbers of formats/CHECKPOINT.md, computed twice: by the program, and from the document's
// formulas written out here again.
#include <gtest/gtest.h>

#include <map>

#include "tests/formats/checkpoint_fixture.h"

namespace plumb {
namespace {

constexpr const char* kName = "h.0.attn.weight";

// "    label  HEX" lines of the document.
std::map<std::string, std::string> document_numbers() {
    std::ifstream file(PLUMB_SOURCE_DIR "/formats/CHECKPOINT.md");
    EXPECT_TRUE(file.good());
    std::map<std::string, std::string> numbers;
    for (std::string line; std::getline(file, line);) {
        if (line.rfind("    ", 0) != 0) continue;
        const size_t space = line.rfind(' ');
        const size_t end = line.find_last_not_of(' ', space);
        if (end != std::string::npos && end >= 4)
            numbers[line.substr(4, end - 3)] = line.substr(space + 1);
    }
    return numbers;
}

std::string hex64(uint64_t value) {
    char text[17];
    std::snprintf(text, sizeof text, "%016llx", static_cast<unsigned long long>(value));
    return text;
}

uint64_t mix(uint64_t x) {
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
    x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
    return x ^ (x >> 31);
}

Hash128 digest_by_formula(uint64_t key, const std::vector<uint32_t>& bits) {
    __extension__ unsigned __int128 sum = 0;
    for (uint64_t i = 0; i < bits.size(); ++i) {
        const uint64_t place = key + i * 0x9E3779B97F4A7C15u;
        const uint64_t low = mix(place ^ mix(bits[i] + 0x632BE59BD9B4E019u));
        const uint64_t high = mix(low + place);
        __extension__ const unsigned __int128 term =
            static_cast<unsigned __int128>(high) << 64 | low;
        sum += term;
    }
    return {static_cast<uint64_t>(sum), static_cast<uint64_t>(sum >> 64)};
}

TEST(Document, StateDigestHasTheDocumentsValue) {
    const auto numbers = document_numbers();
    const std::vector<uint32_t> param = {0x00000000u, 0x3F800000u, 0xC0000000u,
                                         0x80000000u, 0x7FC00001u, 0x00000001u};
    const std::vector<uint32_t> moment(6, 0);
    const uint64_t param_key = hash64(std::string_view(kName), hash64("param"));
    const uint64_t moment_key = hash64(std::string_view(kName), hash64("moment1"));
    const Hash128 param_digest = digest_by_formula(param_key, param);
    const Hash128 moment_digest = digest_by_formula(moment_key, moment);
    EXPECT_EQ(hex64(param_key), numbers.at("key param"));
    EXPECT_EQ(hex64(moment_key), numbers.at("key moment1"));
    EXPECT_EQ(to_hex(param_digest), numbers.at("digest param"));
    EXPECT_EQ(to_hex(moment_digest), numbers.at("digest moment1"));

    EXPECT_EQ(digest_key("param", kName), param_key);
    EXPECT_EQ(digest_elements(param_key, 0, param.data(), 6), param_digest);
    State state;
    state.add("param", kName, Dtype::f32, make_shape(2, 3));
    state.add("moment1", kName, Dtype::f32, make_shape(2, 3));
    std::memcpy(state.data[0].data(), param.data(), 24);
    EXPECT_EQ(to_hex(state.digest()), numbers.at("state digest"));
    const TemporaryFolder folder;
    Saver saver(state);
    ASSERT_TRUE(saver.save(folder.path(), 1).ok());
    CheckpointReader reader(saver.step_directory);
    EXPECT_EQ(to_hex(reader.header().state_digest), numbers.at("state digest"));
    expect_holds(reader, state);  // which recomputes the digest from the stored chunks
}

TEST(Document, LongRunsHaveTheFormulasDigest) {
    std::vector<uint32_t> bits(4099);
    for (size_t i = 0; i < bits.size(); ++i) bits[i] = static_cast<uint32_t>(i * 2654435761u);
    EXPECT_EQ(digest_elements(5, 0, bits.data(), 4099), digest_by_formula(5, bits));
}

TEST(Document, ChunkSeedAndTilingSumHaveTheDocumentsValues) {
    const auto numbers = document_numbers();
    Uuid run;
    for (uint8_t i = 0; i < 16; ++i) run.byte[i] = i;
    const Box box = {{0, 1, 0, 0}, {2, 2, 1, 1}};
    const uint64_t key = digest_key("param", kName);
    EXPECT_EQ(hex64(chunk_seed(run, key, box)), numbers.at("chunk seed"));
    EXPECT_EQ(to_hex(tiling_sum(key, box)), numbers.at("tiling sum"));

    __extension__ unsigned __int128 sum = 0;
    for (int s = 0; s < 16; ++s) {
        int64_t corner[4];
        bool odd = false;
        for (int d = 0; d < 4; ++d) {
            const bool far = (s >> d & 1) != 0;
            corner[d] = box.start[d] + (far ? box.extent[d] : 0);
            odd ^= far;
        }
        const Hash128 h = hash128(corner, sizeof corner, key);
        __extension__ const unsigned __int128 value =
            static_cast<unsigned __int128>(h.high) << 64 | h.low;
        sum = odd ? sum - value : sum + value;
    }
    EXPECT_EQ(to_hex({static_cast<uint64_t>(sum), static_cast<uint64_t>(sum >> 64)}),
              numbers.at("tiling sum"));
}

}  // namespace
}  // namespace plumb
