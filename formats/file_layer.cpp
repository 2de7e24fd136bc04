#include "formats/file_layer.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>

namespace plumb {

const FileLayer& posix_files() noexcept {
    static const FileLayer layer = {
        nullptr,
        [](void*, const char* path, int flags, unsigned mode) { return ::open(path, flags, mode); },
        [](void*, int fd) { return ::close(fd); },
        [](void*, int fd, void* data, int64_t size_bytes, int64_t offset) -> int64_t {
            return ::pread(fd, data, static_cast<size_t>(size_bytes), offset);
        },
        [](void*, int fd, const void* data, int64_t size_bytes, int64_t offset) -> int64_t {
            return ::pwrite(fd, data, static_cast<size_t>(size_bytes), offset);
        },
        [](void*, int fd) -> int64_t {
            struct stat info;
            return ::fstat(fd, &info) == 0 ? info.st_size : -1;
        },
        [](void*, int fd) -> int64_t {
            struct statfs info;
            if (::fstatfs(fd, &info) != 0) return -1;
            return static_cast<int64_t>(info.f_bavail) * static_cast<int64_t>(info.f_bsize);
        },
        [](void*, int fd) { return ::fsync(fd); },
        [](void*, int fd) { return ::fdatasync(fd); },
        [](void*, int fd, int64_t size_bytes) { return ::fallocate(fd, 0, 0, size_bytes); },
        [](void*, int fd, int64_t size_bytes) { return ::ftruncate(fd, size_bytes); },
        [](void*, const char* path, unsigned mode) { return ::mkdir(path, mode); },
        [](void*, const char* path) { return ::rmdir(path); },
        [](void*, const char* path) { return ::unlink(path); },
        [](void*, const char* from, const char* to) { return ::rename(from, to); },
        [](void*, int fd, void* buffer, int64_t size_bytes) -> int64_t {
            return ::syscall(SYS_getdents64, fd, buffer, static_cast<size_t>(size_bytes));
        },
    };
    return layer;
}

namespace {

// Repeats a call while a signal interrupts it.
template <typename Call>
auto uninterrupted(Call call) noexcept {
    auto result = call();
    while (result < 0 && errno == EINTR) result = call();
    return result;
}

}  // namespace

Status join_path(const char* directory, const char* name, Path* path) noexcept {
    const int length = std::snprintf(path->text, sizeof path->text, "%s/%s", directory, name);
    if (length < 0 || length >= kPathBytesMax)
        return failure(StatusCode::bad_argument, "path %.100s.../%s has %d bytes, at most %d fit",
                       directory, name, length, kPathBytesMax - 1);
    return {};
}

Status open_file(const FileLayer& files, const char* path, int flags, int* fd) noexcept {
    const int result =
        uninterrupted([&] { return files.open(files.context, path, flags | O_CLOEXEC, 0644u); });
    if (result < 0)
        return io_failure(errno, "cannot %s %s", (flags & O_CREAT) != 0 ? "create" : "open", path);
    *fd = result;
    return {};
}

Status read_fully(const FileLayer& files, int fd, const char* path, void* data, int64_t size_bytes,
                  int64_t offset) noexcept {
    int64_t done = 0;
    while (done < size_bytes) {
        const int64_t got = uninterrupted([&] {
            return files.pread(files.context, fd, static_cast<char*>(data) + done,
                               size_bytes - done, offset + done);
        });
        if (got < 0)
            return io_failure(errno, "cannot read %lld bytes at offset %lld of %s",
                              static_cast<long long>(size_bytes - done),
                              static_cast<long long>(offset + done), path);
        if (got == 0)
            return failure(StatusCode::damaged, "%s ends at offset %lld, expected bytes to %lld",
                           path, static_cast<long long>(offset + done),
                           static_cast<long long>(offset + size_bytes));
        done += got;
    }
    return {};
}

Status write_fully(const FileLayer& files, int fd, const char* path, const void* data,
                   int64_t size_bytes, int64_t offset) noexcept {
    int64_t done = 0;
    while (done < size_bytes) {
        const int64_t put = uninterrupted([&] {
            return files.pwrite(files.context, fd, static_cast<const char*>(data) + done,
                                size_bytes - done, offset + done);
        });
        if (put <= 0)  // 0 for a non-zero size is no progress: a full device
            return io_failure(put < 0 ? errno : ENOSPC,
                              "cannot write %lld bytes at offset %lld of %s",
                              static_cast<long long>(size_bytes - done),
                              static_cast<long long>(offset + done), path);
        done += put;
    }
    return {};
}

Status measure_file(const FileLayer& files, int fd, const char* path,
                    int64_t* size_bytes) noexcept {
    *size_bytes = uninterrupted([&] { return files.file_bytes(files.context, fd); });
    if (*size_bytes < 0) return io_failure(errno, "cannot tell the size of %s", path);
    return {};
}

Status sync_file(const FileLayer& files, int fd, const char* path) noexcept {
    if (uninterrupted([&] { return files.fsync(files.context, fd); }) < 0)
        return io_failure(errno, "cannot fsync %s", path);
    return {};
}

Status sync_data(const FileLayer& files, int fd, const char* path) noexcept {
    if (uninterrupted([&] { return files.fdatasync(files.context, fd); }) < 0)
        return io_failure(errno, "cannot fdatasync %s", path);
    return {};
}

Status reserve_file(const FileLayer& files, int fd, const char* path, int64_t size_bytes,
                    bool* reserved) noexcept {
    *reserved = uninterrupted([&] { return files.fallocate(files.context, fd, size_bytes); }) == 0;
    const int error = errno;
    if (*reserved || error == EOPNOTSUPP || error == ENOSYS) return {};
    return io_failure(error, "cannot reserve %lld bytes for %s, %lld are free",
                      static_cast<long long>(size_bytes), path,
                      static_cast<long long>(files.free_bytes(files.context, fd)));
}

Status cut_file(const FileLayer& files, int fd, const char* path, int64_t size_bytes) noexcept {
    if (uninterrupted([&] { return files.ftruncate(files.context, fd, size_bytes); }) < 0)
        return io_failure(errno, "cannot set the size of %s to %lld bytes", path,
                          static_cast<long long>(size_bytes));
    return {};
}

Status close_file(const FileLayer& files, int fd, const char* path) noexcept {
    // Linux has closed the descriptor even when it reports EINTR.
    if (files.close(files.context, fd) < 0 && errno != EINTR)
        return io_failure(errno, "cannot close %s", path);
    return {};
}

Status sync_directory(const FileLayer& files, const char* path) noexcept {
    int fd = -1;
    Status status = open_file(files, path, O_RDONLY | O_DIRECTORY, &fd);
    if (!status.ok()) return status;
    status = sync_file(files, fd, path);
    const Status closed = close_file(files, fd, path);
    return status.ok() ? closed : status;
}

Status make_directory(const FileLayer& files, const char* path) noexcept {
    if (uninterrupted([&] { return files.mkdir(files.context, path, 0755u); }) < 0)
        return io_failure(errno, "cannot make directory %s", path);
    return {};
}

Status make_directories(const FileLayer& files, const char* path) noexcept {
    Path part;
    Path parent = {{path[0] == '/' ? '/' : '.'}};
    for (const char* at = path; *at != '\0';) {
        at += std::strspn(at, "/");
        const char* end = at + std::strcspn(at, "/");
        if (end == at) break;  // slashes at the end
        const auto length = static_cast<int>(end - path);
        if (length >= kPathBytesMax)
            return failure(StatusCode::bad_argument, "path %.100s... has %zu bytes, at most %d fit",
                           path, std::strlen(path), kPathBytesMax - 1);
        std::snprintf(part.text, sizeof part.text, "%.*s", length, path);
        Status status = make_directory(files, part.text);
        const bool exists = status.system_errno == EEXIST;
        if (!status.ok() && !exists) return status;
        // Who made one that exists may have died before this sync. Of a parent that is not ours to
        // open it is not asked: then neither is the directory ours.
        status = sync_directory(files, parent.text);
        if (!status.ok() && !exists) return status;
        parent = part;
        at = end;
    }
    return {};
}

Status rename_file(const FileLayer& files, const char* from, const char* to) noexcept {
    if (uninterrupted([&] { return files.rename(files.context, from, to); }) < 0)
        return io_failure(errno, "cannot rename %s to %s", from, to);
    return {};
}

Status remove_file(const FileLayer& files, const char* path) noexcept {
    const int result = uninterrupted([&] { return files.unlink(files.context, path); });
    if (result < 0 && errno != ENOENT) return io_failure(errno, "cannot remove %s", path);
    return {};
}

Status remove_directory(const FileLayer& files, const char* path) noexcept {
    if (uninterrupted([&] { return files.rmdir(files.context, path); }) < 0 && errno != ENOENT)
        return io_failure(errno, "cannot remove directory %s", path);
    return {};
}

Status list_directory(const FileLayer& files, const char* path, VisitEntry visit,
                      void* user) noexcept {
    int fd = -1;
    Status status = open_file(files, path, O_RDONLY | O_DIRECTORY, &fd);
    if (!status.ok()) return status;
    alignas(dirent64) char buffer[4096];
    bool more = true;
    while (more) {
        const int64_t got =
            uninterrupted([&] { return files.getdents(files.context, fd, buffer, sizeof buffer); });
        if (got < 0) status = io_failure(errno, "cannot list %s", path);
        more = got > 0;
        for (int64_t at = 0; at < got && more;) {  // the kernel's struct is glibc's dirent64
            const char* entry = buffer + at;
            uint16_t entry_bytes;
            std::memcpy(&entry_bytes, entry + offsetof(dirent64, d_reclen), sizeof entry_bytes);
            const char* name = entry + offsetof(dirent64, d_name);
            if (std::strcmp(name, ".") != 0 && std::strcmp(name, "..") != 0)
                more = visit(user, name);
            at += entry_bytes;
        }
    }
    const Status closed = close_file(files, fd, path);
    return status.ok() ? closed : status;
}

}  // namespace plumb
