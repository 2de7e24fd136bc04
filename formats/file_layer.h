// The system calls a checkpoint makes, as a table of functions, so that tests can fail the n-th
// call in any way a disk can. Each entry behaves like its system call: -1 and errno on failure,
// short counts and EINTR possible. The functions below retry EINTR and short counts and turn
// failures into a Status. Nothing allocates: directories are listed by getdents64, not opendir.
// Path: hot.
#pragma once

#include "formats/checkpoint_status.h"
#include "runtime/base/types.h"

namespace plumb {

struct FileLayer {
    void* context;
    int (*open)(void* context, const char* path, int flags, unsigned mode);
    int (*close)(void* context, int fd);
    int64_t (*pread)(void* context, int fd, void* data, int64_t size_bytes, int64_t offset);
    int64_t (*pwrite)(void* context, int fd, const void* data, int64_t size_bytes, int64_t offset);
    int64_t (*file_bytes)(void* context, int fd);
    int64_t (*free_bytes)(void* context, int fd);  // of the file system, for this user
    int (*fsync)(void* context, int fd);
    int (*fdatasync)(void* context, int fd);
    int (*fallocate)(void* context, int fd, int64_t size_bytes);
    int (*ftruncate)(void* context, int fd, int64_t size_bytes);
    int (*mkdir)(void* context, const char* path, unsigned mode);
    int (*rmdir)(void* context, const char* path);
    int (*unlink)(void* context, const char* path);
    int (*rename)(void* context, const char* from, const char* to);
    int64_t (*getdents)(void* context, int fd, void* buffer, int64_t size_bytes);
};

// The real system calls.
const FileLayer& posix_files() noexcept;

inline constexpr int kPathBytesMax = 1024;
struct Path {
    char text[kPathBytesMax];
};

// directory + "/" + name; fails when longer than kPathBytesMax - 1.
Status join_path(const char* directory, const char* name, Path* path) noexcept;

// `path` in these is for the message only, except where a file is opened.
Status open_file(const FileLayer& files, const char* path, int flags, int* fd) noexcept;
Status read_fully(const FileLayer& files, int fd, const char* path, void* data, int64_t size_bytes,
                  int64_t offset) noexcept;
Status write_fully(const FileLayer& files, int fd, const char* path, const void* data,
                   int64_t size_bytes, int64_t offset) noexcept;
Status measure_file(const FileLayer& files, int fd, const char* path, int64_t* size_bytes) noexcept;
Status sync_file(const FileLayer& files, int fd, const char* path) noexcept;
Status sync_data(const FileLayer& files, int fd, const char* path) noexcept;
// Reserves blocks and sets the size; *reserved is false where the file system cannot (then the
// writes find out whether the disk is full).
Status reserve_file(const FileLayer& files, int fd, const char* path, int64_t size_bytes,
                    bool* reserved) noexcept;
Status cut_file(const FileLayer& files, int fd, const char* path, int64_t size_bytes) noexcept;
Status close_file(const FileLayer& files, int fd, const char* path) noexcept;
// Opens, fsyncs and closes a directory, so that names made or removed in it are durable.
Status sync_directory(const FileLayer& files, const char* path) noexcept;
Status make_directory(const FileLayer& files, const char* path) noexcept;
// A directory and those above it, as far as they are missing; each is made durable in its parent,
// those that exist as far as the parent can be opened.
Status make_directories(const FileLayer& files, const char* path) noexcept;
Status rename_file(const FileLayer& files, const char* from, const char* to) noexcept;
Status remove_file(const FileLayer& files, const char* path) noexcept;  // absent is ok
Status remove_directory(const FileLayer& files, const char* path) noexcept;

// Calls visit(user, name) for each entry but "." and "..", until it returns false.
using VisitEntry = bool (*)(void* user, const char* name);
Status list_directory(const FileLayer& files, const char* path, VisitEntry visit,
                      void* user) noexcept;

}  // namespace plumb
