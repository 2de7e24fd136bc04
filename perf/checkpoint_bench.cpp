// Checkpoint figures. A small GPT is trained for some steps on text made here; every stream of its
// state is then coded and decoded chunk by chunk, as a save and a load do, beside plain zstd-1 on
// the same chunks, in turns. Ratios stand beside what entropy allows, speeds beside zstd's Huffman
// coder alone on the exponents plus a copy of the rest. Whole saves stand beside the disk's own
// writes of as many bytes. Codec speeds are per second of one thread's processor time (other
// processes share the machine, not the figure), saves per second of wall clock.
#define ZSTD_STATIC_LINKING_ONLY
#include <fcntl.h>
#include <fmt/format.h>
#include <time.h>
#include <unistd.h>
#include <zstd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <array>
#include <bit>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <numeric>
#include <string>
#include <vector>

#include "formats/file_layer.h"
#include "runtime/base/digest.h"
#include "runtime/base/error.h"
#include "runtime/base/random.h"
#include "runtime/engine/background_save.h"
#include "runtime/engine/session.h"
#include "runtime/engine/state_io.h"
#include "runtime/exec/wait_policy.h"

namespace plumb {
namespace {

constexpr int64_t kChunk = kChunkBytesDefault;

double thread_seconds_of(const auto& body) {
    const auto now = [] {
        timespec t = {};
        ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
        return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
    };
    const double start = now();
    body();
    return now() - start;
}

double wall_seconds_of(const auto& body) {
    const auto start = std::chrono::steady_clock::now();
    body();
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

double median(std::vector<double> values) {
    std::sort(values.begin(), values.end());
    return values[values.size() / 2];
}

// Sentences of frequent words: predictable enough that a few steps learn something.
std::vector<int32_t> made_text(int64_t byte_count, uint64_t seed) {
    constexpr const char* kWords[] = {"the",    "of",    "and",   "a",     "to",    "in",
                                      "model",  "byte",  "is",    "every", "plan",  "memory",
                                      "before", "step",  "runs",  "has",   "place", "gradient",
                                      "weight", "saved", "reads", "when",  "again", "tensor"};
    std::vector<int32_t> text;
    for (uint64_t n = 0; static_cast<int64_t>(text.size()) < byte_count; ++n) {
        const double u = random_uniform(seed, n);
        const auto word = static_cast<size_t>(u * u * static_cast<double>(std::size(kWords)));
        for (const char* c = kWords[word]; *c != 0; ++c) text.push_back(*c);
        text.push_back(n % 9 == 8 ? '.' : ' ');
    }
    text.resize(static_cast<size_t>(byte_count));
    return text;
}

void fill_rows(Session& session, uint64_t step) {
    const BatchSpec& batch = session.config().run.batch;
    const IoTensors& io = session.program().io;
    const Executor& executor = session.executor();
    const int64_t tokens = batch.micro_batch_tokens();
    for (int32_t m = 0; m < session.program().micro_batch_count; ++m) {
        const std::vector<int32_t> text =
            made_text(tokens + 1, random_key(step, "text") + static_cast<uint64_t>(m));
        for (int64_t n = 0; n < tokens; ++n) {
            executor.data<int32_t>(io.tokens, m)[n] = text[static_cast<size_t>(n)];
            executor.data<int32_t>(io.targets, m)[n] = text[static_cast<size_t>(n) + 1];
            executor.data<float>(io.loss_weights, m)[n] = 1;
            executor.data<int32_t>(io.positions, m)[n] =
                static_cast<int32_t>(n % batch.sequence_length);
            executor.data<int32_t>(io.segment_start, m)[n] = 0;
        }
    }
}

void train(Session& session, int steps) {
    const TrainSpec& spec = session.config().run.train;
    session.run_phase(PhaseKind::initialise);
    StepScalars& scalars = session.executor().scalars();
    scalars.lr = 1e-3;
    scalars.beta1 = spec.beta1;
    scalars.beta2 = spec.beta2;
    scalars.eps = spec.eps;
    scalars.weight_decay = spec.weight_decay;
    scalars.clip = spec.clip;
    scalars.inverse_weight_sum =
        1.0 / static_cast<double>(session.config().run.batch.step_tokens());
    for (int step = 1; step <= steps; ++step) {
        fill_rows(session, static_cast<uint64_t>(step));
        scalars.bias_correction1 = 1 - std::pow(spec.beta1, step);
        scalars.bias_correction2 = 1 - std::pow(spec.beta2, step);
        for (const Entry& entry : session.program().phase(PhaseKind::step)->entries)
            session.executor().run(entry);
    }
}

// The bytes of one stream as a save would have them, and where its chunks begin and end.
struct Stream {
    const char* name;
    Dtype dtype;
    std::vector<uint8_t> bytes;
    std::vector<int64_t> chunk_end;

    void add_chunks(const void* data, int64_t size_bytes) {
        const auto* at = static_cast<const uint8_t*>(data);
        for (int64_t end = 0; end < size_bytes;) {
            end = std::min(end + kChunk, size_bytes);
            chunk_end.push_back(static_cast<int64_t>(bytes.size()) + end);
        }
        bytes.insert(bytes.end(), at, at + size_bytes);
    }
    int64_t size_bytes() const { return static_cast<int64_t>(bytes.size()); }
    void for_each_chunk(const auto& body) const {
        int64_t begin = 0;
        for (size_t c = 0; c < chunk_end.size(); begin = chunk_end[c++])
            body(c, bytes.data() + begin, chunk_end[c] - begin);
    }
};

bool has_exponent(Dtype dtype) {
    return dtype == Dtype::f32 || dtype == Dtype::bf16 || dtype == Dtype::f16;
}

uint16_t half_of(float value) {
    const uint32_t bits = std::bit_cast<uint32_t>(value);
    const uint32_t magnitude = bits & 0x7FFFFFFFu;
    // Below 2^-14 f16 counts in 2^-24; above, the exponent counts from 15 instead of 127.
    const uint32_t half = std::fabs(value) < 0x1p-14F
                              ? static_cast<uint32_t>(std::lrint(std::fabs(value) * 0x1p24F))
                              : (magnitude - (112u << 23) + 0x1000u) >> 13;
    return static_cast<uint16_t>((bits >> 16 & 0x8000u) | half);
}

// Matrices in 16 bits are made from the fp32 weights, which are the masters; norms and biases, 1-D,
// stay fp32 in every mixed precision.
std::vector<Stream> streams_of(Session& session) {
    std::vector<Stream> streams = {
        {"param", Dtype::f32, {}, {}},   {"param", Dtype::bf16, {}, {}},
        {"param", Dtype::f16, {}, {}},   {"master_lo", Dtype::u16, {}, {}},
        {"moment1", Dtype::f32, {}, {}}, {"moment2", Dtype::f32, {}, {}}};
    for (const Param& param : session.program().params) {
        const float* weight = session.executor().data<float>(param.weight);
        const int64_t count = param.shape.elements();
        streams[0].add_chunks(weight, count * 4);
        streams[4].add_chunks(session.executor().data<float>(param.moment1), count * 4);
        streams[5].add_chunks(session.executor().data<float>(param.moment2), count * 4);
        if (param.shape.rank < 2) continue;
        std::vector<uint16_t> high, half, low;
        for (int64_t i = 0; i < count; ++i) {
            const uint32_t bits = std::bit_cast<uint32_t>(weight[i]);
            high.push_back(static_cast<uint16_t>((bits + 0x8000u) >> 16));
            half.push_back(half_of(weight[i]));
            low.push_back(static_cast<uint16_t>(bits));
        }
        streams[1].add_chunks(high.data(), count * 2);
        streams[2].add_chunks(half.data(), count * 2);
        streams[3].add_chunks(low.data(), count * 2);
    }
    return streams;
}

double entropy_bits(const auto& counts) {
    double sum = 0, bits = 0;
    for (const int64_t n : counts) sum += static_cast<double>(n);
    for (const int64_t n : counts)
        if (n > 0) bits += static_cast<double>(n) * std::log2(sum / static_cast<double>(n));
    return bits;
}

// Bytes a chunk takes at the order-0 entropy of its parts.
struct Entropy {
    double limit = 0;  // plane 0 and the sign at theirs, the other bits as they are
    double all = 0;    // every byte plane at its own
};

Entropy entropy_of(const uint8_t* chunk, int64_t size_bytes, Dtype dtype) {
    const int64_t word_bytes = dtype_bytes(dtype);
    std::array<std::array<int64_t, 256>, 4> planes = {};
    std::array<int64_t, 2> signs = {};
    for (int64_t i = 0; i < size_bytes; i += word_bytes) {
        uint32_t word = 0;
        std::memcpy(&word, chunk + i, static_cast<size_t>(word_bytes));
        ++signs[word >> (8 * word_bytes - 1)];
        word = word << 1 | word >> (8 * word_bytes - 1);  // the bits above are not looked at
        for (int64_t p = 0; p < word_bytes; ++p)
            ++planes[static_cast<size_t>(p)][word >> (8 * (word_bytes - 1 - p)) & 0xFF];
    }
    Entropy bytes;
    for (const auto& plane : planes) bytes.all += entropy_bits(plane) / 8;
    const auto words = static_cast<double>(size_bytes / word_bytes);
    const double rest = words * static_cast<double>(8 * word_bytes - 9);
    bytes.limit = has_exponent(dtype) ? (entropy_bits(planes[0]) + entropy_bits(signs) + rest) / 8
                                      : static_cast<double>(size_bytes);
    return bytes;
}

// One row's coders: ours, plain zstd-1, and the limit (zstd's Huffman coder on plane 0 that was
// made beforehand, and a copy of the other bytes). Each pass codes and then decodes the stream.
class Coders {
  public:
    explicit Coders(const Stream& stream)
        : stream_(stream),
          staging_(codec_staging_bytes(kChunk)),
          back_(stream.bytes.size()),
          plain_in_(ZSTD_createCCtx()),
          plain_out_(ZSTD_createDCtx()) {
        const bool planes = has_exponent(stream.dtype);
        const int64_t word = dtype_bytes(stream.dtype);
        stream.for_each_chunk([&](size_t, const uint8_t* chunk, int64_t bytes) {
            std::vector<uint8_t> top;
            for (int64_t i = 0; planes && i < bytes; i += word)
                top.push_back(
                    static_cast<uint8_t>(chunk[i + word - 1] << 1 | chunk[i + word - 2] >> 7));
            plane0_.push_back(std::move(top));
        });
        const size_t chunks = stream.chunk_end.size();
        stored_.resize(chunks);
        coded_.resize(chunks);
        plain_.resize(chunks);
        huffman_.resize(chunks);
    }
    ~Coders() {
        ZSTD_freeCCtx(plain_in_);
        ZSTD_freeDCtx(plain_out_);
    }
    Coders(const Coders&) = delete;
    Coders& operator=(const Coders&) = delete;

    enum Coder { ours, plain, limit, coder_count };
    struct Times {
        std::vector<double> in, out;
    };

    void pass(Coder coder) {
        times_[coder].in.push_back(thread_seconds_of([&] { run(coder, true); }));
        if (coder == ours) keep_stored();
        std::fill(back_.begin(), back_.end(), uint8_t{0});
        times_[coder].out.push_back(thread_seconds_of([&] { run(coder, false); }));
        if (coder != limit && back_ != stream_.bytes)
            throw Error(ExitCode::io, "what was decoded is not what was coded");
    }
    double in_rate(Coder coder) const { return rate(times_[coder].in); }
    double out_rate(Coder coder) const { return rate(times_[coder].out); }
    double ratio(Coder coder) const {
        int64_t bytes = 0;
        for (size_t c = 0; c < stored_.size(); ++c)
            bytes +=
                coder == ours ? stored_[c].stored_bytes : static_cast<int64_t>(plain_[c].size());
        return static_cast<double>(stream_.size_bytes()) / static_cast<double>(bytes);
    }

  private:
    double rate(const std::vector<double>& seconds) const {
        return static_cast<double>(stream_.size_bytes()) / 1e6 / median(seconds);
    }
    void run(Coder coder, bool in) {
        stream_.for_each_chunk([&](size_t c, const uint8_t* chunk, int64_t bytes) {
            uint8_t* back = back_.data() + (chunk - stream_.bytes.data());
            if (coder == ours)
                in ? code(c, chunk, bytes) : decode(c, back, bytes);
            else if (coder == plain)
                in ? code_plain(c, chunk, bytes) : decode_plain(c, back, bytes);
            else
                in ? code_limit(c, chunk, bytes) : decode_limit(c, chunk, back, bytes);
        });
    }

    // As CheckpointWriter and CheckpointReader do, but for the file.
    void code(size_t c, const uint8_t* chunk, int64_t bytes) {
        stored_[c] = encode_chunk(stream_.dtype, chunk, bytes, staging_.spans());
        hash_ = hash128(staging_.spans().stored.data, stored_[c].stored_bytes, c);
    }
    void decode(size_t c, uint8_t* back, int64_t bytes) {
        CodecStaging staging = staging_.spans();
        staging.stored = {coded_[c].data(), static_cast<int64_t>(coded_[c].size())};
        hash_ = hash128(staging.stored.data, stored_[c].stored_bytes, c);
        throw_if_failed(decode_chunk(stored_[c], back, bytes, staging));
    }
    // Outside the time taken: code() leaves each chunk in the staging, where the next one goes.
    void keep_stored() {
        stream_.for_each_chunk([&](size_t c, const uint8_t* chunk, int64_t bytes) {
            if (!coded_[c].empty()) return;
            code(c, chunk, bytes);
            const uint8_t* stored = staging_.spans().stored.data;
            coded_[c].assign(stored, stored + stored_[c].stored_bytes);
        });
    }

    void code_plain(size_t c, const uint8_t* chunk, int64_t bytes) {
        plain_[c].resize(ZSTD_compressBound(static_cast<size_t>(bytes)));
        plain_[c].resize(ZSTD_compressCCtx(plain_in_, plain_[c].data(), plain_[c].size(), chunk,
                                           static_cast<size_t>(bytes), 1));
    }
    void decode_plain(size_t c, uint8_t* back, int64_t bytes) {
        ZSTD_decompressDCtx(plain_out_, back, static_cast<size_t>(bytes), plain_[c].data(),
                            plain_[c].size());
    }

    // The same parameters as in formats/planes.cpp.
    void code_limit(size_t c, const uint8_t* chunk, int64_t bytes) {
        const std::vector<uint8_t>& plane0 = plane0_[c];
        if (!plane0.empty()) {
            ZSTD_CCtx_setParameter(plain_in_, ZSTD_c_compressionLevel, ZSTD_minCLevel());
            ZSTD_CCtx_setParameter(plain_in_, ZSTD_c_literalCompressionMode, ZSTD_lcm_huffman);
            huffman_[c].resize(ZSTD_compressBound(plane0.size()));
            huffman_[c].resize(ZSTD_compress2(plain_in_, huffman_[c].data(), huffman_[c].size(),
                                              plane0.data(), plane0.size()));
        }
        const size_t rest = static_cast<size_t>(bytes) - plane0.size();
        std::memcpy(staging_.spans().stored.data, chunk, rest);
    }
    void decode_limit(size_t c, const uint8_t* chunk, uint8_t* back, int64_t bytes) {
        const std::vector<uint8_t>& plane0 = plane0_[c];
        if (!plane0.empty())
            ZSTD_decompressDCtx(plain_out_, staging_.spans().planes.data, plane0.size(),
                                huffman_[c].data(), huffman_[c].size());
        std::memcpy(back, chunk, static_cast<size_t>(bytes) - plane0.size());
    }

    const Stream& stream_;
    OwnedStaging staging_;
    std::vector<uint8_t> back_;
    ZSTD_CCtx* plain_in_;
    ZSTD_DCtx* plain_out_;
    std::vector<std::vector<uint8_t>> plane0_, coded_, plain_, huffman_;
    std::vector<StoredChunk> stored_;
    Times times_[coder_count];
    Hash128 hash_;
};

void bench_stream(const Stream& stream, int rounds) {
    Entropy entropy;
    stream.for_each_chunk([&](size_t, const uint8_t* chunk, int64_t bytes) {
        const Entropy e = entropy_of(chunk, bytes, stream.dtype);
        entropy.limit += e.limit;
        entropy.all += e.all;
    });
    const auto raw = static_cast<double>(stream.size_bytes());
    const double limit = raw / entropy.limit;
    Coders coders(stream);
    for (int round = 0; round < rounds; ++round)
        for (const auto coder : {Coders::ours, Coders::plain, Coders::limit}) coders.pass(coder);
    const double in = coders.in_rate(Coders::ours);
    const double out = coders.out_rate(Coders::ours);
    const double in_limit = coders.in_rate(Coders::limit);
    const double out_limit = coders.out_rate(Coders::limit);
    fmt::print(
        "{:<9} {:<4} {:>6.1f}  {:>6.4f} {:>6.4f} {:>5.1f}% {:>6.4f}  {:>6.0f} {:>5.1f}% {:>6.0f} "
        "{:>5.1f}%  {:>6.4f} {:>5.0f} {:>5.0f}\n",
        stream.name, dtype_name(stream.dtype), raw / 1e6, coders.ratio(Coders::ours), limit,
        100 * coders.ratio(Coders::ours) / limit, raw / entropy.all, in, 100 * in / in_limit, out,
        100 * out / out_limit, coders.ratio(Coders::plain), coders.in_rate(Coders::plain),
        coders.out_rate(Coders::plain));
    std::fflush(stdout);
}

void bench_digest(const Stream& stream, int rounds) {
    const auto* words = reinterpret_cast<const uint32_t*>(stream.bytes.data());
    std::vector<double> times;
    volatile uint64_t sink = 0;
    for (int round = 0; round < rounds; ++round)
        times.push_back(thread_seconds_of(
            [&] { sink = digest_elements(1, 0, words, stream.size_bytes() / 4).low; }));
    fmt::print("state digest: {:.0f} MB/s per thread, f32\n",
               static_cast<double>(stream.size_bytes()) / 1e6 / median(times));
}

// What the disk takes for as many bytes in the same calls: reserve, write in chunks, fdatasync.
void write_plainly(const std::string& path, const std::vector<uint8_t>& noise, int64_t size_bytes) {
    const FileLayer& files = posix_files();
    int fd = -1;
    bool reserved = false;
    throw_if_failed(open_file(files, path.c_str(), O_WRONLY | O_CREAT | O_EXCL, &fd));
    throw_if_failed(reserve_file(files, fd, path.c_str(), size_bytes, &reserved));
    for (int64_t at = 0; at < size_bytes; at += kChunk)
        throw_if_failed(write_fully(files, fd, path.c_str(), noise.data(),
                                    std::min(kChunk, size_bytes - at), at));
    throw_if_failed(sync_data(files, fd, path.c_str()));
    throw_if_failed(close_file(files, fd, path.c_str()));
}

// A save that the step waits for.
void bench_save(Session& session, int rounds) {
    StateIo state(session);
    state.prepare_folder();
    const std::string plain_path = session.config().run.checkpoint.dir + "/plain";
    std::vector<uint8_t> noise(static_cast<size_t>(kChunk));
    for (size_t i = 0; i < noise.size(); ++i)
        noise[i] = static_cast<uint8_t>(philox(9, i, 0).word[0]);
    std::vector<double> saves, writes;
    SaveReport report;
    for (int round = 0; round < rounds; ++round) {
        RunRecord record;
        record.step = round + 1;
        saves.push_back(wall_seconds_of([&] { throw_if_failed(state.save(record, &report)); }));
        std::filesystem::remove_all(report.directory.text);
        writes.push_back(
            wall_seconds_of([&] { write_plainly(plain_path, noise, report.file_bytes); }));
        std::filesystem::remove(plain_path);
    }
    const double raw = static_cast<double>(report.raw_bytes) / 1e6;
    const double file = static_cast<double>(report.file_bytes) / 1e6;
    fmt::print(
        "save, the step waiting: {:.1f} MB of state in {:.1f} MB, {:.3f} s: {:.0f} MB/s of state, "
        "{:.0f} MB/s of file; the disk alone {:.0f} MB/s: {:.1f} %\n",
        raw, file, median(saves), raw / median(saves), file / median(saves), file / median(writes),
        100 * median(writes) / median(saves));
}

// A step as the training loop runs it: an update waits for a save that has not passed its unit.
double step_seconds(Session& session, BackgroundSave* saver) {
    const Program& program = session.program();
    return wall_seconds_of([&] {
        for (const Entry& entry : program.phase(PhaseKind::step)->entries) {
            if (saver != nullptr && is_update(program, entry))
                saver->wait_for(program.sections[static_cast<size_t>(entry.section)].unit);
            session.executor().run(entry);
        }
    });
}

// A save beside the step that follows it, and the same step alone, in turns.
void bench_background_save(Session& session, int rounds) {
    StateIo state(session);
    state.prepare_folder();
    BackgroundSave saver(state);
    std::vector<double> alone, beside, stalls, saves;
    for (int round = 0; round < rounds; ++round) {
        alone.push_back(step_seconds(session, nullptr));
        RunRecord record;
        record.step = round + 1;
        saver.start(record);
        beside.push_back(step_seconds(session, &saver));
        const SaveOutcome& outcome = saver.finish();
        throw_if_failed(outcome.status);
        stalls.push_back(outcome.report.stall_s);
        saves.push_back(outcome.report.seconds);
    }
    fmt::print(
        "save beside a step: step alone {:.1f} ms, beside the save {:.1f} ms, of which its updates "
        "waited {:.1f} ms (stall); the save took {:.1f} ms\n",
        1e3 * median(alone), 1e3 * median(beside), 1e3 * median(stalls), 1e3 * median(saves));
}

int run(int argc, char** argv) {
    CLI::App app("Checkpoint streams: ratios, codec speeds and saves beside their limits");
    bool smoke = false;
    int64_t threads = 0;
    int steps = 40, rounds = 7;
    std::string parent = ".";
    app.add_flag("--smoke", smoke, "A tiny model, seconds");
    app.add_option("--threads", threads, "Of training and digest; 0: all cores");
    app.add_option("--steps", steps, "Training steps before the state is measured")
        ->check(CLI::PositiveNumber);
    app.add_option("--rounds", rounds, "Of each measurement; medians are printed")
        ->check(CLI::PositiveNumber);
    app.add_option("--dir", parent, "A folder on the disk that saves are measured on");
    try {
        app.parse(argc, argv);
    } catch (const CLI::Success& success) {
        return app.exit(success);
    } catch (const CLI::ParseError& error) {
        throw Error(ExitCode::bad_input, error.what());
    }
    if (smoke) {
        steps = std::min(steps, 10);
        rounds = 1;
    }
    const std::string folder = fmt::format("{}/checkpoint_bench.{}", parent, ::getpid());
    std::vector<std::string> settings = {"train.dtype=fp32",
                                         "train.sample_tokens=0",
                                         "batch.micro_batch=4",
                                         "batch.global_batch=4",
                                         "batch.sequence_length=256",
                                         "checkpoint.dir=" + folder,
                                         fmt::format("run.threads={}", threads)};
    if (!smoke)
        settings.insert(settings.end(), {"model.hidden_size=384", "model.num_hidden_layers=6",
                                         "model.num_attention_heads=6"});
    Session session(load_run("tiny", settings), Purpose::train);
    train(session, steps);
    const std::vector<Stream> streams = streams_of(session);
    fmt::print(
        "state of a GPT of {} bytes-as-tokens parameters after {} steps of AdamW on generated "
        "text; "
        "16-bit streams are made from its fp32 weights; chunks of {} bytes; medians of {} in "
        "turns\n"
        "limit: plane 0 and the sign at their order-0 entropy per chunk, the rest raw; all: every "
        "byte plane at its entropy\n"
        "of limit: of zstd's Huffman coder alone on plane 0 and a copy of the rest\n",
        streams[0].size_bytes() / 4, steps, kChunk, rounds);
    fmt::print(
        "{:<14} {:>6}  {:>6} {:>6} {:>6} {:>6}  {:>6} {:>6} {:>6} {:>6}  {:>6} {:>5} {:>5}\n",
        "stream", "MB", "ratio", "limit", "share", "all", "MB/s in", "of lim", "out", "of lim",
        "zstd-1", "in", "out");
    for (const Stream& stream : streams) bench_stream(stream, rounds);
    bench_digest(streams[0], rounds);
    bench_save(session, rounds);
    bench_background_save(session, rounds);
    std::filesystem::remove_all(folder);
    return 0;
}

}  // namespace
}  // namespace plumb

int main(int argc, char** argv) {
    plumb::spin_briefly(argv);
    return plumb::run_main([&] { return plumb::run(argc, argv); });
}
