#include "runtime/engine/state_io.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <filesystem>
#include <limits>
#include <set>
#include <sstream>

#include "runtime/base/digest.h"
#include "runtime/base/error.h"
#include "runtime/engine/numerics.h"
#include "runtime/engine/state_records.h"

namespace plumb {

namespace {

bool is_step_folder(const std::string& path) {
    struct stat info;
    return ::stat((path + "/" + kManifestName).c_str(), &info) == 0;
}

struct PassedOver {
    std::string path;
    std::string why;
    bool lasting;
};

// Hands the newest readable checkpoint of a run folder, or a step folder itself, to `load`.
bool open_newest(const std::string& directory, const std::function<void(CheckpointReader&)>& load,
                 std::vector<PassedOver>* passed) {
    if (is_step_folder(directory)) {
        CheckpointReader reader(directory);
        load(reader);
        return true;
    }
    std::vector<PassedOver> damaged;
    bool found = false;
    try {
        found =
            load_newest(directory, load, [&](const std::string& path, const CheckpointDamage& why) {
                damaged.push_back({path, why.what(), why.lasting()});
            });
    } catch (const CheckpointDamage&) {
        throw;  // of all of them
    } catch (const Error& error) {
        std::string text = error.what();
        for (const PassedOver& p : damaged)
            text += fmt::format("; it was tried because of {}: {}", p.path, p.why);
        throw Error(error.code(), text);
    }
    if (passed != nullptr) *passed = std::move(damaged);
    return found;
}

// Fails for checkpoint.dir: exit code 2 where another name would help.
void check_folder(const Status& status) {
    if (status.ok()) return;
    const bool bad_name = status.code == StatusCode::bad_argument ||
                          status.system_errno == ENOTDIR || status.system_errno == ENAMETOOLONG;
    throw Error(bad_name ? ExitCode::bad_input : ExitCode::io,
                fmt::format("checkpoint.dir: {}", status.message));
}

// Fails for a folder in which the longest path of a step's files would not fit.
void check_path_length(const std::string& directory) {
    Path step;
    Path file;
    const FileName widest = step_directory_name(std::numeric_limits<int64_t>::max(), 0);
    check_folder(join_path(directory.c_str(), widest.text, &step));
    check_folder(join_path(step.text, data_file_name(0).text, &file));
}

std::string shape_text(const Shape& shape) {
    return fmt::format("[{}]", fmt::join(shape.dim, shape.dim + shape.rank, ", "));
}

// The lines "key = value" of `text` whose keys `like` has too.
std::string lines_of_keys(const std::string& text, const std::string& like) {
    const auto for_each_line = [](const std::string& lines, const auto& body) {
        std::istringstream stream(lines);
        for (std::string line; std::getline(stream, line);)
            body(line.substr(0, line.find(" = ")), line);
    };
    std::set<std::string> keys;
    for_each_line(like, [&](const std::string& key, const std::string&) { keys.insert(key); });
    std::string kept;
    for_each_line(text, [&](const std::string& key, const std::string& line) {
        if (keys.count(key) > 0) kept += line + "\n";
    });
    return kept;
}

}  // namespace

StateIo::StateIo(Session& session, const FileLayer& files)
    : session_(session),
      files_(files),
      directory_(session.config().run.checkpoint.dir),
      settings_(settings_text(session.config())),
      model_hash_(model_hash(session.config())),
      training_hash_(training_hash(session.config())),
      layout_hash_(layout_hash(session.config())),
      numerics_hash_(numerics_hash(session)),
      run_(fresh_uuid()) {
    const Program& program = session.program();
    const bool trains = program.section(SectionKind::forward) >= 0;
    const Purpose purpose = trains ? Purpose::train : Purpose::generate;
    records_ = state_records(program.params, trains, program_dtype(session.config(), purpose));
    for (const Param& param : program.params) {
        add_place(param.unit, param.weight, param.master);
        if (!trains || !param.trainable) continue;
        add_place(param.unit, param.master, kNoTensor);
        add_place(param.unit, param.moment1, kNoTensor);
        add_place(param.unit, param.moment2, kNoTensor);
    }
    add_place(kNoUnit, program.io.loss_scale, kNoTensor);
    CHECK(places_.size() == records_.size());
    // As a step updates them.
    std::stable_sort(places_.begin(), places_.end(),
                     [](const Place& a, const Place& b) { return a.unit < b.unit; });
    throw_if_failed(check_codec_contexts());
}

// The next record's place; nothing for a tensor that the program does not have.
void StateIo::add_place(UnitId unit, TensorId id, TensorId master) {
    if (id == kNoTensor) return;
    const auto record = static_cast<int64_t>(places_.size());
    CHECK(places_.size() < records_.size());
    const TensorRecord& info = records_[places_.size()];
    const std::string_view stream = info.stream;
    const Dtype dtype = tensor_dtype(info);
    Place place{record, unit, id, kNoTensor, true, state_key(info)};
    if (dtype == Dtype::bf16) place.low = master;
    // Params that masters in other streams make whole, or replace.
    if (dtype == Dtype::f16 || stream == "master_lo") place.in_digest = false;
    places_.push_back(place);
}

StateIo::~StateIo() {
    if (lock_fd_ >= 0) ::close(lock_fd_);
}

// The lock goes with the process, however it ends; the file stays, since another may be waiting to
// open it.
void StateIo::lock_folder() {
    const std::string path = directory_ + "/" + kLockName;
    const int fd = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    if (fd >= 0 && ::flock(fd, LOCK_EX | LOCK_NB) == 0) {
        lock_fd_ = fd;
        return;
    }
    const int code = errno;
    if (fd >= 0) ::close(fd);
    if (code == EWOULDBLOCK)
        throw Error(ExitCode::bad_input,
                    fmt::format("checkpoint.dir: {} is in use by another training, which holds {}: "
                                "wait for its end or name another folder",
                                directory_, path));
    throw Error(ExitCode::io,
                fmt::format("checkpoint.dir: cannot lock {} (flock, which keeps two trainings out "
                            "of one folder): {}; name a folder on a file system that has locks",
                            path, std::strerror(code)));
}

void StateIo::prepare_folder() {
    if (lock_fd_ >= 0) return;
    check_path_length(directory_);
    check_folder(make_directories(files_, directory_.c_str()));
    struct stat info;
    if (::stat(directory_.c_str(), &info) == 0 && !S_ISDIR(info.st_mode))
        throw Error(ExitCode::bad_input,
                    fmt::format("checkpoint.dir: {} is a file; the files of a run need a folder",
                                directory_));
    if (::access(directory_.c_str(), W_OK | X_OK) != 0)
        throw Error(ExitCode::io, fmt::format("checkpoint.dir: cannot write to {}: {}", directory_,
                                              std::strerror(errno)));
    lock_folder();
}

void StateIo::remove_unfinished() {
    CHECK_NOTE(lock_fd_ >= 0, "another process may be saving there");
    int removed = 0;
    throw_if_failed(remove_uncommitted(files_, directory_.c_str(), run_, &removed));
}

void StateIo::refuse_later_steps(int64_t step) const {
    for (const StepEntry& entry : find_steps(directory_))
        if ((entry.state == StepState::committed || entry.status.code == StatusCode::unsupported) &&
            entry.step > step)
            throw Error(
                ExitCode::bad_input,
                fmt::format("checkpoint.dir: {} holds {} of step {}, but this run starts at "
                            "step {}: move that folder away or name another",
                            directory_, entry.name, entry.step, step));
}

CodecStaging StateIo::staging(OpKind kind, ByteSpan* index) const {
    const Program& program = session_.program();
    using In = CheckpointOperands;
    for (const Op& op : program.ops) {
        if (op.kind != kind) continue;
        const auto span = [&](int operand) {
            const TensorId id = op.operand[operand];
            if (id == kNoTensor) return ByteSpan{};
            return ByteSpan{session_.executor().data<uint8_t>(id),
                            program.tensors[static_cast<size_t>(id)].size_bytes};
        };
        if (index != nullptr) *index = span(In::index);
        return {span(In::raw), span(In::planes), span(In::stored), span(In::context)};
    }
    CHECK_NOTE(false, "the program does not plan this checkpoint op");
    return {};
}

LoadReport StateIo::load(const std::string& directory) {
    LoadReport report;
    std::vector<PassedOver> passed;
    report.found = open_newest(
        directory,
        [&](CheckpointReader& reader) {
            report.path = reader.path();
            load_tensors(reader, &report);
        },
        &passed);
    // Only now that an older one has been loaded: were all of them set aside, the next start would
    // find none and begin a new run.
    std::error_code unknown;
    const bool ours = lock_fd_ >= 0 && std::filesystem::equivalent(directory, directory_, unknown);
    // A training must not go on from an older step while a newer one may be readable tomorrow: the
    // next start would take that one and drop what was trained in between.
    for (const PassedOver& p : passed)
        if (ours && !p.lasting)
            throw Error(ExitCode::io,
                        fmt::format("cannot read {}: {}; try again, or move it away to go on from "
                                    "{}",
                                    p.path, p.why, report.path));
    for (const PassedOver& p : passed)
        report.notes.push_back(
            fmt::format("passed over {}: {}{}", p.path, p.why, ours ? set_aside(p.path) : ""));
    return report;
}

// What is to be said of it. One that keeps its name is kept beside the number that retention keeps.
std::string StateIo::set_aside(const std::string& path) {
    const std::string name = path.substr(path.rfind('/') + 1);
    const Status status = set_aside_step(files_, directory_.c_str(), name.c_str());
    if (status.ok())
        return fmt::format("; it is now {}/{}{}, for you to look at or delete", directory_,
                           kDamagedPrefix, name);
    ++unreadable_count_;
    return fmt::format("; {}", status.message);
}

// Index of a tensor of this shape, -1 when the checkpoint has none.
int64_t StateIo::find_tensor(const CheckpointReader& reader, const char* stream,
                             const std::string& name, const Shape& shape) const {
    const int64_t tensor = reader.find(stream, name);
    if (tensor >= 0 && !(tensor_shape(reader.tensor(tensor)) == shape))
        throw Error(
            ExitCode::bad_input,
            fmt::format("checkpoint {}: {} of {} is {}, in this model it is {}", reader.path(),
                        stream, name, shape_text(tensor_shape(reader.tensor(tensor))),
                        shape_text(shape)));
    return tensor;
}

// A whole tensor as the checkpoint has it; to a GPU chunk by chunk, as it was saved.
void StateIo::read_elements(CheckpointReader& reader, int64_t tensor, TensorId to,
                            const CodecStaging& staging) {
    Executor& executor = session_.executor();
    if (executor.gpu() == nullptr)
        return reader.read_tensor(tensor, executor.data<char>(to), staging);
    const TensorRecord& record = reader.tensor(tensor);
    const int64_t element_bytes = dtype_bytes(tensor_dtype(record));
    const int64_t chunk_bytes = reader.header().chunk_bytes_max;
    char* chunk = executor.data<char>(session_.program().io.passage);
    ChunkCursor cursor(whole_box(tensor_shape(record)), chunk_bytes / element_bytes);
    Box box;
    for (int64_t first = 0; cursor.next(&box, &first);) {
        reader.read_box(tensor, box, chunk, staging);
        executor.write(to, first * element_bytes, chunk, box_elements(box) * element_bytes);
    }
}

// Weight and master from what the checkpoint has of them, converted where its dtype is another.
void StateIo::load_weights(CheckpointReader& reader, const Param& param,
                           const CodecStaging& staging) {
    const Dtype dtype = session_.program().tensors[static_cast<size_t>(param.weight)].dtype;
    const auto find = [&](const char* stream) {
        return find_tensor(reader, stream, param.name, param.shape);
    };
    const int64_t weight = find("param");
    if (weight < 0)
        throw Error(ExitCode::bad_input,
                    fmt::format("checkpoint {} has no param of {}", reader.path(), param.name));
    const Dtype stored = tensor_dtype(reader.tensor(weight));
    // What makes it a master. Inference reads params alone.
    const bool trains = param.moment1 != kNoTensor;
    const char* completing = !trains                 ? nullptr
                             : stored == Dtype::bf16 ? "master_lo"
                             : stored == Dtype::f16  ? "master"
                                                     : nullptr;
    const int64_t rest = completing == nullptr ? -1 : find(completing);
    if (completing != nullptr && rest < 0)
        throw Error(ExitCode::bad_input, fmt::format("checkpoint {} has no {} of {}", reader.path(),
                                                     completing, param.name));
    // The reader has held both to their streams' dtypes; what follows sizes memory by them.
    CHECK(dtype_bytes(stored) <= 4);
    CHECK(rest < 0 ||
          tensor_dtype(reader.tensor(rest)) == (stored == Dtype::bf16 ? Dtype::u16 : Dtype::f32));
    if (stored == dtype && (param.master == kNoTensor) == (rest < 0)) {
        read_elements(reader, weight, param.weight, staging);
        if (rest >= 0) read_elements(reader, rest, param.master, staging);
        return;
    }
    constexpr int64_t kBlock = int64_t{1} << 20;  // a few chunks, so that few are decoded twice
    const bool has_master = param.master != kNoTensor;
    const int64_t weight_bytes = dtype_bytes(dtype);
    const int64_t master_bytes = dtype == Dtype::f16 ? 4 : 2;
    std::vector<uint32_t> block(kBlock), weights(kBlock), masters(has_master ? kBlock : 0);
    const WeightPlace place{dtype, weights.data(), has_master ? masters.data() : nullptr};
    const bool whole_master = rest >= 0 && stored == Dtype::f16;  // the param adds nothing to it
    for (int64_t first = 0; first < param.elements(); first += kBlock) {
        const int64_t count = std::min(kBlock, param.elements() - first);
        for (const int64_t tensor : {whole_master ? -1 : weight, rest}) {
            if (tensor < 0) continue;
            const TensorRecord& record = reader.tensor(tensor);
            reader.read_span(tensor, first, count, block.data(), staging);
            put_weights(place, 0, count, record.stream, tensor_dtype(record), block.data());
        }
        Executor& executor = session_.executor();
        executor.write(param.weight, first * weight_bytes, weights.data(), count * weight_bytes);
        if (has_master)
            executor.write(param.master, first * master_bytes, masters.data(),
                           count * master_bytes);
    }
}

// Of the state that this run has and the checkpoint has not: a loss scale new with fp16.
Hash128 StateIo::digest_of_new_state(const CheckpointReader& reader) const {
    Hash128 sum;
    for (const Place& place : places_) {
        const TensorRecord& record = records_[static_cast<size_t>(place.record)];
        if (std::string_view(record.stream) == "state" &&
            reader.find(record.stream, record.name) < 0) {
            // Made by this run, a few numbers.
            std::vector<uint8_t> bytes(static_cast<size_t>(tensor_shape(record).elements() *
                                                           dtype_bytes(tensor_dtype(record))));
            session_.executor().read(place.tensor, 0, bytes.data(),
                                     static_cast<int64_t>(bytes.size()));
            sum = digest_add(
                sum, digest_span(place, 0, tensor_shape(record).elements(), bytes.data(), nullptr));
        }
    }
    return sum;
}

// Of the state that the checkpoint has and this run has no use for: a loss scale after fp16.
Hash128 StateIo::digest_of_unknown_state(CheckpointReader& reader, const CodecStaging& staging) {
    Hash128 sum;
    for (int64_t t = 0; t < reader.tensor_count(); ++t) {
        const TensorRecord& stored = reader.tensor(t);
        const bool known = std::any_of(
            records_.begin(), records_.end(),
            [&](const TensorRecord& record) { return tensor_key(record) == tensor_key(stored); });
        if (!known && std::string_view(stored.stream) == "state")
            sum = digest_add(sum, reader.digest(t, staging));
    }
    return sum;
}

void StateIo::load_tensors(CheckpointReader& reader, LoadReport* report) {
    const std::string settings(reader.settings());
    // Both hashed by this program: the saved hash does not know of settings that came later, whose
    // defaults are what the model was then. Only the model's lines are read: rules about training
    // may have become stricter since, and must not keep a model from being loaded.
    const std::string model_now = settings_text(session_.config(), HashGroup::model);
    const RunConfig saved = parse_settings_text(lines_of_keys(settings, model_now), reader.path());
    if (!(model_hash(saved) == model_hash_)) {
        std::string lines;
        for (const std::string& line :
             differing_settings(settings_text(saved, HashGroup::model), model_now))
            lines += "\n  " + line;
        throw Error(ExitCode::bad_input,
                    fmt::format("checkpoint {} is of another model:{}", reader.path(), lines));
    }
    const int64_t chunk_bytes = session_.config().run.checkpoint.chunk_bytes;
    if (reader.header().chunk_bytes_max > chunk_bytes)
        throw Error(ExitCode::does_not_fit,
                    fmt::format("checkpoint {} has chunks of {} bytes, the memory planned for "
                                "reading is for checkpoint.chunk_bytes = {}: set it to {}",
                                reader.path(), reader.header().chunk_bytes_max, chunk_bytes,
                                reader.header().chunk_bytes_max));
    const CodecStaging staging = this->staging(OpKind::checkpoint_read, nullptr);
    session_.run_section(SectionKind::load);
    for (const Param& param : session_.program().params) load_weights(reader, param, staging);
    for (const Place& place : places_) {
        const TensorRecord& record = records_[static_cast<size_t>(place.record)];
        const std::string_view stream = record.stream;
        if (stream == "param" || stream == "master" || stream == "master_lo") continue;
        const int64_t tensor =
            find_tensor(reader, record.stream, record.name, tensor_shape(record));
        // A run that was not fp16 before has no loss scale yet: it starts as a new run's.
        if (tensor < 0 && stream == "state") continue;
        if (tensor < 0 || tensor_dtype(reader.tensor(tensor)) != Dtype::f32)
            throw Error(ExitCode::bad_input,
                        fmt::format("checkpoint {} has no fp32 {} of {}", reader.path(),
                                    record.stream, record.name));
        read_elements(reader, tensor, place.tensor, staging);
    }
    report->record = reader.record();
    report->digest = reader.header().state_digest;
    run_ = reader.header().run;
    if (session_.program().section(SectionKind::digest) < 0) return;
    const Hash128 loaded = digest_add(digest(), digest_of_unknown_state(reader, staging));
    const Hash128 expected = digest_add(report->digest, digest_of_new_state(reader));
    if (!(loaded == expected))
        throw CheckpointDamage(fmt::format("{}: the state's digest is {}, its MANIFEST says {}",
                                           reader.path(), to_hex(loaded), to_hex(expected)));
    const std::string training_now = settings_text(session_.config(), HashGroup::training);
    report->differences = differing_settings(lines_of_keys(settings, training_now), training_now);
    const std::string other = numerics_difference(reader.record().numerics_hash, numerics_hash_);
    if (!other.empty()) report->differences.push_back(other);
}

Hash128 StateIo::digest() noexcept {
    session_.run_section(SectionKind::digest);
    Executor& executor = session_.executor();
    executor.fetch(session_.program().io.digest);
    executor.wait();
    const auto* words = executor.data<int64_t>(session_.program().io.digest);
    return {static_cast<uint64_t>(words[0]), static_cast<uint64_t>(words[1])};
}

// What the digest ops make of `count` elements from `first` on, which stand at `data` and `low`.
Hash128 StateIo::digest_span(const Place& place, int64_t first, int64_t count, const uint8_t* data,
                             const uint16_t* low) const noexcept {
    if (!place.in_digest) return {};
    if (low != nullptr)
        return digest_masters(place.digest_key, first, reinterpret_cast<const uint16_t*>(data), low,
                              count);
    return digest_elements(place.digest_key, first, reinterpret_cast<const uint32_t*>(data), count);
}

// Chunk by chunk, so that the digest takes what it reads from memory out of a cache for the codec.
Status StateIo::write_state(CheckpointWriter& writer, const ByteSpan& room, SaveProgress& progress,
                            Hash128* digest) noexcept {
    Executor& executor = session_.executor();
    const int64_t chunk_bytes = session_.config().run.checkpoint.chunk_bytes;
    *digest = {};
    for (const Place& place : places_) {
        const TensorRecord& record = records_[static_cast<size_t>(place.record)];
        const int64_t element_bytes = dtype_bytes(tensor_dtype(record));
        progress.reading(place.unit);
        ChunkCursor cursor(whole_box(tensor_shape(record)), chunk_bytes / element_bytes);
        Box box;
        for (int64_t first = 0; cursor.next(&box, &first);) {
            const int64_t count = box_elements(box);
            const uint8_t* data = executor.view_for_save(place.tensor, first * element_bytes,
                                                         count * element_bytes, room.data);
            const uint16_t* low = nullptr;
            if (place.low != kNoTensor)
                low = reinterpret_cast<const uint16_t*>(executor.view_for_save(
                    place.low, first * 2, count * 2, room.data + chunk_bytes));
            *digest = digest_add(*digest, digest_span(place, first, count, data, low));
            const Status status = writer.write_box(place.record, box, data);
            if (!status.ok()) return status;
        }
    }
    return {};
}

Status StateIo::save(const RunRecord& record, SaveReport* report, SaveProgress* progress) noexcept {
    const auto start = std::chrono::steady_clock::now();
    SaveRequest request;
    request.directory = directory_.c_str();
    request.run = run_;
    request.record = record;
    request.record.model_hash = model_hash_;
    request.record.training_hash = training_hash_;
    request.record.layout_hash = layout_hash_;
    request.record.numerics_hash = numerics_hash_;
    request.tensors = records_.data();
    request.tensor_count = static_cast<int64_t>(records_.size());
    request.settings = settings_.data();
    request.settings_bytes = static_cast<int64_t>(settings_.size());
    request.chunk_bytes = session_.config().run.checkpoint.chunk_bytes;
    SaveMemory memory;
    memory.staging = staging(OpKind::checkpoint_write, &memory.index);
    SaveProgress nobody_waits;
    SaveProgress& passed = progress == nullptr ? nobody_waits : *progress;
    CheckpointWriter writer(files_);
    Status status = writer.begin(request, memory);
    if (status.ok()) status = write_state(writer, memory.staging.raw, passed, &report->digest);
    passed.end();
    if (status.ok()) status = writer.commit(report->digest);
    report->raw_bytes = writer.raw_bytes();
    report->file_bytes = writer.file_bytes();
    report->reserved = writer.reserved();
    std::snprintf(report->directory.text, sizeof report->directory.text, "%s",
                  writer.step_directory());
    report->seconds = seconds_since(start);
    return status;
}

Status StateIo::prune(int* removed) noexcept {
    return keep_newest(files_, directory_.c_str(), run_,
                       static_cast<int>(session_.config().run.checkpoint.keep) + unreadable_count_,
                       session_.config().run.checkpoint.keep_every, removed);
}

RunConfig config_of_checkpoint(const std::string& directory,
                               const std::vector<std::string>& overrides) {
    std::string settings, path;
    const bool found = open_newest(
        directory,
        [&](CheckpointReader& reader) {
            settings = reader.settings();
            path = reader.path();
        },
        nullptr);
    if (!found) throw Error(ExitCode::bad_input, fmt::format("no checkpoint in {}", directory));
    return parse_run(settings, path, ".", overrides);
}

}  // namespace plumb
