#include "formats/token_writer.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <memory>
#include <sstream>

#include "runtime/base/checked.h"
#include "runtime/base/log.h"

namespace plumb {

namespace {

constexpr const char* kByteTokenizer = "bytes";

[[noreturn]] void fail_io(const std::string& doing, int code) {
    throw Error(ExitCode::io, "cannot " + doing + ": " + std::strerror(code));
}

std::string temporary_path(const std::string& path) {
    return path + ".tmp";
}

// A file that gets its name when everything succeeded; otherwise its temporary is removed.
class PendingFile {
  public:
    explicit PendingFile(const std::string& path) : path_(path), temporary_(temporary_path(path)) {
        fd_ = ::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
        if (fd_ < 0) fail_io("create " + temporary_, errno);
    }
    ~PendingFile() {
        if (fd_ >= 0) ::close(fd_);
        if (!committed_) ::unlink(temporary_.c_str());
    }
    PendingFile(const PendingFile&) = delete;
    PendingFile& operator=(const PendingFile&) = delete;

    void write(const char* data, int64_t size_bytes) {
        if (!write_all(fd_, data, size_bytes))
            fail_io("write " + path_ + " after " + std::to_string(written_bytes_) + " bytes",
                    errno);
        written_bytes_ += size_bytes;
    }
    void flush() {
        if (::fsync(fd_) != 0) fail_io("flush " + path_, errno);
    }
    void commit() {
        if (::rename(temporary_.c_str(), path_.c_str()) != 0)
            fail_io("rename " + temporary_ + " to " + path_, errno);
        committed_ = true;
    }

  private:
    std::string path_;
    std::string temporary_;
    int fd_ = -1;
    int64_t written_bytes_ = 0;
    bool committed_ = false;
};

// A token file being written, and its largest id so far.
struct TokenOutput {
    TokenOutput(const std::string& path, int64_t count)
        : bin(path), sidecar(token_sidecar_path(path)), info{1, count, 0, kByteTokenizer} {}
    void write(const char* bytes, int64_t count) {
        for (int64_t i = 0; i < count; ++i)
            info.largest = std::max(info.largest, int64_t{static_cast<unsigned char>(bytes[i])});
        bin.write(bytes, count);
    }
    PendingFile bin;
    PendingFile sidecar;
    TokenFileInfo info;
};

int64_t text_bytes(const std::string& path) {
    struct stat status;
    if (::stat(path.c_str(), &status) != 0)
        throw Error(errno == ENOENT || errno == ENOTDIR ? ExitCode::bad_input : ExitCode::io,
                    "cannot open text " + path + ": " + std::strerror(errno));
    if (S_ISDIR(status.st_mode))
        throw Error(ExitCode::bad_input, path + " is a directory; name the text files in it");
    if (!S_ISREG(status.st_mode)) throw Error(ExitCode::bad_input, path + " is not a regular file");
    if (status.st_size == 0) throw Error(ExitCode::bad_input, "text " + path + " is empty");
    return status.st_size;
}

// Reads a text piece by piece, and insists that it has the size that the split was made for.
template <typename Sink>
void for_each_piece(const std::string& path, int64_t size_bytes, Sink sink) {
    const std::unique_ptr<std::FILE, int (*)(std::FILE*)> file(std::fopen(path.c_str(), "rbe"),
                                                               std::fclose);
    if (!file) fail_io("open text " + path, errno);
    std::vector<char> piece(static_cast<size_t>(kMiB));
    int64_t seen_bytes = 0;
    while (const size_t got = std::fread(piece.data(), 1, piece.size(), file.get())) {
        seen_bytes += static_cast<int64_t>(got);
        if (seen_bytes > size_bytes) break;
        sink(piece.data(), static_cast<int64_t>(got));
    }
    if (std::ferror(file.get())) fail_io("read text " + path, errno);
    if (seen_bytes != size_bytes)
        throw Error(ExitCode::io, "text " + path +
                                      " changed while it was read: " + std::to_string(size_bytes) +
                                      " bytes at first, then " + std::to_string(seen_bytes));
}

void remove_sidecar(const std::string& bin_path) {
    const std::string path = token_sidecar_path(bin_path);
    if (::unlink(path.c_str()) != 0 && errno != ENOENT) fail_io("replace " + path, errno);
}

void flush_directory(const std::string& path) {
    const int fd = ::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    const bool flushed = fd >= 0 && ::fsync(fd) == 0;
    const int code = errno;
    if (fd >= 0) ::close(fd);
    if (!flushed) fail_io("flush directory " + path, code);
}

// Whether this program made the token file at `path`, and may make it anew: its sidecar says so, or
// the sidecar that an interrupted plumb-data had ready to rename.
bool is_ours(const std::string& path) {
    for (const std::string& sidecar :
         {token_sidecar_path(path), temporary_path(token_sidecar_path(path))}) {
        std::ifstream file(sidecar);
        std::ostringstream text;
        if (!file || !(text << file.rdbuf())) continue;
        try {
            return parse_token_sidecar(text.str(), sidecar).tokenizer == kByteTokenizer;
        } catch (const Error&) {
            return false;  // a sidecar that says nothing does not say that it is ours
        }
    }
    return false;
}

// Fails before anything is replaced when a name is taken by what rename cannot replace, or by a
// text that is read here.
void check_replaceable(const std::string& path, const std::vector<std::string>& texts) {
    struct stat status;
    if (::lstat(path.c_str(), &status) == 0 && S_ISDIR(status.st_mode))
        throw Error(ExitCode::bad_input, path + " is a directory; a token file goes there");
    if (::stat(path.c_str(), &status) != 0) return;
    for (const std::string& text : texts) {
        struct stat other;
        if (::stat(text.c_str(), &other) == 0 && other.st_dev == status.st_dev &&
            other.st_ino == status.st_ino)
            throw Error(ExitCode::bad_input,
                        "text " + text + " is " + path +
                            ", which would be overwritten; name another folder with --out");
    }
}

// Fails before anything is replaced when it cannot be, or should not.
void check_output(const std::string& path, const std::vector<std::string>& texts) {
    const std::string sidecar = token_sidecar_path(path);
    for (const std::string& name : {path, sidecar, temporary_path(path), temporary_path(sidecar)})
        check_replaceable(name, texts);
    if (::access(path.c_str(), F_OK) == 0 && !is_ours(path))
        throw Error(ExitCode::bad_input, path + " exists and was not made by this program (no " +
                                             sidecar + " says tokenizer \"" + kByteTokenizer +
                                             "\"); move it away or name another folder with --out");
}

}  // namespace

WrittenTokens write_byte_tokens(const std::vector<std::string>& texts, const std::string& directory,
                                double valid_fraction) {
    if (!(valid_fraction > 0 && valid_fraction < 1))
        throw Error(ExitCode::bad_input, "valid fraction " + std::to_string(valid_fraction) +
                                             " is not between 0 and 1 (both excluded)");
    std::vector<int64_t> sizes;
    int64_t total = 0;
    for (const std::string& text : texts) {
        sizes.push_back(text_bytes(text));
        total = checked_add(total, sizes.back(), "bytes of all texts");
    }
    if (total < 2)
        throw Error(ExitCode::bad_input, "the texts hold " + std::to_string(total) +
                                             " bytes; at least 2 are needed for two files");
    const auto share =
        static_cast<int64_t>(std::floor(static_cast<double>(total) * valid_fraction));
    const int64_t valid_count = std::clamp(share, int64_t{1}, total - 1);
    const int64_t train_count = total - valid_count;

    std::error_code problem;
    if (std::filesystem::exists(directory, problem) &&
        !std::filesystem::is_directory(directory, problem))
        throw Error(ExitCode::bad_input, directory + " is a file; the output goes to a directory");
    std::filesystem::create_directories(directory, problem);
    if (problem) throw Error(ExitCode::io, "cannot create " + directory + ": " + problem.message());
    const std::string train_path = directory + "/train.bin";
    const std::string valid_path = directory + "/valid.bin";
    for (const std::string& path : {train_path, valid_path}) check_output(path, texts);

    TokenOutput train(train_path, train_count);
    TokenOutput valid(valid_path, valid_count);
    int64_t position = 0;
    for (size_t i = 0; i < texts.size(); ++i) {
        for_each_piece(texts[i], sizes[i], [&](const char* bytes, int64_t count) {
            const int64_t to_train = std::clamp(train_count - position, int64_t{0}, count);
            train.write(bytes, to_train);
            valid.write(bytes + to_train, count - to_train);
            position += count;
        });
    }
    for (TokenOutput* output : {&train, &valid}) {
        const std::string text = format_token_sidecar(output->info);
        output->sidecar.write(text.data(), static_cast<int64_t>(text.size()));
        output->bin.flush();
        output->sidecar.flush();
    }
    // From here on only renames. A .bin beside another .bin's sidecar must not exist at any moment.
    remove_sidecar(train_path);
    remove_sidecar(valid_path);
    train.bin.commit();
    valid.bin.commit();
    train.sidecar.commit();
    valid.sidecar.commit();
    flush_directory(directory);
    return {train.info, valid.info};
}

}  // namespace plumb
