// What the checkpoint tests share: a temporary folder, a small state to save and compare, and a
// file layer that fails a chosen call in a chosen way.
// Path: cold.
#pragma once

#include <gtest/gtest.h>
#include <stdlib.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <string>
#include <vector>

#include "formats/checkpoint_reader.h"
#include "formats/checkpoint_writer.h"
#include "runtime/base/digest.h"
#include "runtime/base/random.h"

namespace plumb {

// In memory where possible: hundreds of saves with their fsyncs take seconds on a disk.
class TemporaryFolder {
  public:
    explicit TemporaryFolder(bool on_disk = false) {
        const bool in_memory = !on_disk && ::access("/dev/shm", W_OK) == 0;
        const std::filesystem::path parent =
            in_memory ? "/dev/shm" : std::filesystem::temp_directory_path();
        std::string name = (parent / "plumb-XXXXXX").string();
        EXPECT_NE(mkdtemp(name.data()), nullptr);
        path_ = name;
    }
    ~TemporaryFolder() {
        std::error_code ignored;
        std::filesystem::remove_all(path_, ignored);
    }
    TemporaryFolder(const TemporaryFolder&) = delete;
    TemporaryFolder& operator=(const TemporaryFolder&) = delete;
    const std::string& path() const { return path_; }

  private:
    std::string path_;
};

inline std::vector<uint8_t> read_bytes(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    EXPECT_TRUE(file.good()) << path;
    return {std::istreambuf_iterator<char>(file), {}};
}

inline void write_bytes(const std::string& path, const std::vector<uint8_t>& bytes) {
    std::ofstream file(path, std::ios::binary | std::ios::trunc);
    file.write(reinterpret_cast<const char*>(bytes.data()),
               static_cast<std::streamsize>(bytes.size()));
    EXPECT_TRUE(file.good()) << path;
}

// Normal values of an f32, bf16 or f16 tensor of `size_bytes`.
inline std::vector<uint8_t> normal_words(Dtype dtype, int64_t size_bytes, uint64_t key,
                                         double scale = 0.02) {
    const int64_t word_bytes = dtype_bytes(dtype);
    std::vector<uint8_t> raw(static_cast<size_t>(size_bytes));
    for (int64_t i = 0; i < size_bytes / word_bytes; ++i) {
        const auto value = static_cast<float>(scale * random_normal(key, static_cast<uint64_t>(i)));
        uint32_t bits = std::bit_cast<uint32_t>(value);
        if (dtype == Dtype::bf16) bits = (bits + 0x8000u) >> 16;
        // f16 of a normal number below 2: the exponent counts from 15, not 127, and 10 bits stay.
        if (dtype == Dtype::f16)
            bits = std::fabs(value) < 0x1p-14F
                       ? 0
                       : (bits >> 16 & 0x8000u) | ((bits & 0x7FFFFFFFu) - (112u << 23)) >> 13;
        std::memcpy(raw.data() + i * word_bytes, &bits, static_cast<size_t>(word_bytes));
    }
    return raw;
}

// A state of tensors with its memory for saving.
struct State {
    std::vector<TensorRecord> tensors;
    std::vector<std::vector<uint8_t>> data;
    int64_t chunk_bytes = 2048;
    Uuid run;
    Hash128 numerics_hash;
    std::string settings = "preset = \"tiny\"\n";

    void add(const char* stream, const char* name, Dtype dtype, const Shape& shape) {
        tensors.push_back(make_tensor_record(stream, name, dtype, shape));
        data.emplace_back(static_cast<size_t>(shape.elements() * dtype_bytes(dtype)));
    }
    // Normal values for dtypes with an exponent, noise for others, different for every seed.
    void fill(uint64_t seed) {
        for (size_t t = 0; t < data.size(); ++t) {
            const uint64_t key = random_key(seed, tensors[t].name) + t;
            const Dtype dtype = tensor_dtype(tensors[t]);
            for (size_t i = 0; i < data[t].size(); ++i)
                data[t][i] = static_cast<uint8_t>(philox(key, i, 0).word[0]);
            if (dtype == Dtype::f32 || dtype == Dtype::bf16 || dtype == Dtype::f16)
                data[t] = normal_words(dtype, static_cast<int64_t>(data[t].size()), key);
        }
    }
    // Elements as 32-bit words: narrow ones widened, wide ones as several.
    std::vector<uint32_t> words_of(size_t t) const {
        const auto element_bytes =
            std::min<size_t>(4, static_cast<size_t>(dtype_bytes(tensor_dtype(tensors[t]))));
        std::vector<uint32_t> words(data[t].size() / element_bytes, 0);
        for (size_t i = 0; i < words.size(); ++i)
            std::memcpy(&words[i], &data[t][i * element_bytes], element_bytes);
        return words;
    }
    Hash128 digest() const {
        Hash128 sum;
        for (size_t t = 0; t < data.size(); ++t) {
            std::vector<uint32_t> words = words_of(t);
            const std::string stream = tensors[t].stream;
            bool enters = stream != "master_lo";
            for (size_t m = 0; stream == "param" && m < data.size(); ++m) {
                if (std::strcmp(tensors[m].name, tensors[t].name) != 0) continue;
                const std::vector<uint32_t> other = words_of(m);
                if (std::string(tensors[m].stream) == "master") enters = false;
                if (std::string(tensors[m].stream) == "master_lo")
                    for (size_t i = 0; i < words.size(); ++i)
                        words[i] = (words[i] << 16) + other[i] - (other[i] & 0x8000u) * 2;
            }
            if (!enters) continue;
            const uint64_t key = digest_key(stream == "master" ? "param" : stream, tensors[t].name);
            sum = digest_add(
                sum, digest_elements(key, 0, words.data(), static_cast<int64_t>(words.size())));
        }
        return sum;
    }
};

inline State small_state(uint64_t seed = 1) {
    State state;
    state.run.byte[0] = 7;
    state.numerics_hash = {3, 4};
    state.add("param", "wte", Dtype::f32, make_shape(37, 29));
    state.add("moment1", "wte", Dtype::f32, make_shape(37, 29));
    state.add("param", "h.0.ln.weight", Dtype::f32, make_shape(13));
    state.add("state", "counts", Dtype::i64, make_shape(3, 5));
    state.add("state", "flags", Dtype::u8, make_shape(3, 1, 7, 2));
    state.add("state", "scale", Dtype::f32, Shape{});
    state.add("param", "h.0.w", Dtype::bf16, make_shape(7, 5, 3));
    state.add("master_lo", "h.0.w", Dtype::u16, make_shape(7, 5, 3));
    state.add("param", "h.1.w", Dtype::f16, make_shape(101));
    state.add("master", "h.1.w", Dtype::f32, make_shape(101));
    state.fill(seed);
    return state;
}

// Saves all of a state; what a trainer does.
struct Saver {
    explicit Saver(const State& state)
        : state_(state),
          staging_(codec_staging_bytes(state.chunk_bytes)),
          index_(static_cast<size_t>(planned_chunk_count(state.tensors.data(),
                                                         static_cast<int64_t>(state.tensors.size()),
                                                         state.chunk_bytes))) {}

    SaveRequest request(const std::string& folder, int64_t step) const {
        SaveRequest r;
        r.directory = folder.c_str();
        r.run = state_.run;
        r.record.step = step;
        r.record.sequences_consumed = step * 32;
        r.record.tokens_consumed = step * 32 * 256;
        r.record.model_hash = {1, 2};
        r.record.numerics_hash = state_.numerics_hash;
        r.tensors = state_.tensors.data();
        r.tensor_count = static_cast<int64_t>(state_.tensors.size());
        r.settings = state_.settings.data();
        r.settings_bytes = static_cast<int64_t>(state_.settings.size());
        r.chunk_bytes = state_.chunk_bytes;
        return r;
    }
    SaveMemory memory() {
        return {staging_.spans(),
                {reinterpret_cast<uint8_t*>(index_.data()),
                 static_cast<int64_t>(index_.size() * sizeof(ChunkRecord))}};
    }
    Status save(const std::string& folder, int64_t step, const FileLayer& files = posix_files()) {
        CheckpointWriter writer(files);
        Status status = writer.begin(request(folder, step), memory());
        for (size_t t = 0; t < state_.data.size() && status.ok(); ++t)
            status = writer.write_tensor(static_cast<int64_t>(t), state_.data[t].data());
        if (status.ok()) status = writer.commit(state_.digest());
        step_directory = writer.step_directory();
        return status;
    }
    std::string step_directory;

  private:
    const State& state_;
    OwnedStaging staging_;
    std::vector<ChunkRecord> index_;
};

// Rewrites the header of a file with its hash made right again.
template <typename Header>
void change_header(const std::string& path, const std::function<void(Header&)>& change) {
    std::vector<uint8_t> bytes = read_bytes(path);
    Header header;
    std::memcpy(&header, bytes.data(), sizeof header);
    change(header);
    header.own_hash = hash128(&header, offsetof(Header, own_hash));
    std::memcpy(bytes.data(), &header, sizeof header);
    write_bytes(path, bytes);
}

// As a program of another version would have written the step.
inline void set_version(const std::string& step, uint32_t version) {
    change_header<ManifestHeader>(step + "/MANIFEST",
                                  [&](ManifestHeader& header) { header.version = version; });
    change_header<DataHeader>(step + "/data-00000.pck",
                              [&](DataHeader& header) { header.version = version; });
}

// All of a checkpoint equals a state, bit for bit.
inline void expect_holds(CheckpointReader& reader, const State& state) {
    const OwnedStaging staging(reader.staging_bytes());
    ASSERT_EQ(reader.tensor_count(), static_cast<int64_t>(state.tensors.size()));
    for (size_t t = 0; t < state.data.size(); ++t) {
        std::vector<uint8_t> read(state.data[t].size(), 0xEE);
        reader.read_tensor(static_cast<int64_t>(t), read.data(), staging.spans());
        EXPECT_EQ(read, state.data[t]) << state.tensors[t].name;
    }
    reader.verify(staging.spans());
}

enum class Fault { error, interrupted, short_count };

// Passes calls on to `under`, but the n-th (from 0) goes wrong; with `for_ever` so do all that
// follow. -1: none. Counts calls.
struct FaultyFiles {
    int64_t fault_at = -1;
    Fault fault = Fault::error;
    int error = EIO;
    bool for_ever = false;
    int64_t calls = 0;
    FileLayer layer = {};

    // True when this call is to fail; errno is then set.
    bool fails() {
        const int64_t call = calls++;
        if (fault_at < 0 || call < fault_at || (call > fault_at && !for_ever)) return false;
        if (fault == Fault::short_count) return false;
        errno = fault == Fault::interrupted ? EINTR : error;
        return true;
    }
    int64_t shortened(int64_t size_bytes) const {
        const bool now = fault == Fault::short_count && fault_at >= 0 &&
                         (calls - 1 == fault_at || (for_ever && calls > fault_at));
        return now && size_bytes > 1 ? size_bytes / 2 : size_bytes;
    }

    explicit FaultyFiles(const FileLayer& under = posix_files()) : under_(under) {
        layer.context = this;
        layer.open = [](void* c, const char* p, int f, unsigned m) {
            return self(c).fails() ? -1 : on(c).open(on(c).context, p, f, m);
        };
        layer.close = [](void* c, int fd) {
            const bool failed = self(c).fails();
            const int fault_errno = errno;
            const int result =
                on(c).close(on(c).context, fd);  // a failed close closes all the same
            if (failed) errno = fault_errno;
            return failed ? -1 : result;
        };
        layer.pread = [](void* c, int fd, void* d, int64_t n, int64_t at) -> int64_t {
            if (self(c).fails()) return -1;
            return on(c).pread(on(c).context, fd, d, self(c).shortened(n), at);
        };
        layer.pwrite = [](void* c, int fd, const void* d, int64_t n, int64_t at) -> int64_t {
            if (self(c).fails()) return -1;
            return on(c).pwrite(on(c).context, fd, d, self(c).shortened(n), at);
        };
        layer.file_bytes = [](void* c, int fd) -> int64_t {
            return self(c).fails() ? -1 : on(c).file_bytes(on(c).context, fd);
        };
        layer.free_bytes = [](void* c, int fd) { return on(c).free_bytes(on(c).context, fd); };
        layer.fsync = [](void* c, int fd) {
            return self(c).fails() ? -1 : on(c).fsync(on(c).context, fd);
        };
        layer.fdatasync = [](void* c, int fd) {
            return self(c).fails() ? -1 : on(c).fdatasync(on(c).context, fd);
        };
        layer.fallocate = [](void* c, int fd, int64_t n) {
            return self(c).fails() ? -1 : on(c).fallocate(on(c).context, fd, n);
        };
        layer.ftruncate = [](void* c, int fd, int64_t n) {
            return self(c).fails() ? -1 : on(c).ftruncate(on(c).context, fd, n);
        };
        layer.mkdir = [](void* c, const char* p, unsigned m) {
            return self(c).fails() ? -1 : on(c).mkdir(on(c).context, p, m);
        };
        layer.rmdir = [](void* c, const char* p) {
            return self(c).fails() ? -1 : on(c).rmdir(on(c).context, p);
        };
        layer.unlink = [](void* c, const char* p) {
            return self(c).fails() ? -1 : on(c).unlink(on(c).context, p);
        };
        layer.rename = [](void* c, const char* a, const char* b) {
            return self(c).fails() ? -1 : on(c).rename(on(c).context, a, b);
        };
        layer.getdents = [](void* c, int fd, void* b, int64_t n) -> int64_t {
            return self(c).fails() ? -1 : on(c).getdents(on(c).context, fd, b, n);
        };
    }
    FaultyFiles(const FaultyFiles&) = delete;
    FaultyFiles& operator=(const FaultyFiles&) = delete;

  private:
    static FaultyFiles& self(void* context) { return *static_cast<FaultyFiles*>(context); }
    static const FileLayer& on(void* context) { return self(context).under_; }
    const FileLayer& under_;
};

}  // namespace plumb
