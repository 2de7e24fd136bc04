// A file system in memory that knows what a power failure may leave of it. Every call that changes
// something is logged: entries made or taken away in a directory, bytes written, sizes set, syncs.
// A sync of a file makes the contents before it durable, a sync of a directory the entries. Of all
// else a failure keeps any subset, in any order, writes down to single sectors of 512 bytes. This
// is what POSIX allows and more: a rename is two entries that fall apart, a file may have grown
// without its bytes and then show those of a deleted file.
// Path: cold.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "formats/file_layer.h"

namespace plumb {

inline constexpr int64_t kSectorBytes = 512;

// What lies on a disk. An inode is never reused, so what nobody names any more merely stays.
struct DiskImage {
    struct Inode {
        bool is_directory = false;
        std::vector<uint8_t> bytes;
        std::map<std::string, int> entries;
    };
    std::vector<Inode> inodes = {{true, {}, {}}};  // 0: the root

    // Paths of all files and empty directories, sorted.
    std::vector<std::string> paths() const;
    // The file of an absolute path, made with its directories where they are missing.
    std::vector<uint8_t>& file(const std::string& path);
};

class SimulatedDisk {
  public:
    // A disk on which all of `image` is durable.
    explicit SimulatedDisk(DiskImage image = {});
    SimulatedDisk(const SimulatedDisk&) = delete;
    SimulatedDisk& operator=(const SimulatedDisk&) = delete;

    const FileLayer& layer() const { return layer_; }
    const DiskImage& now() const { return now_; }
    int open_files() const;
    // Operations so far; a crash happens after the first `end` of them.
    size_t operations() const { return log_.size(); }

    // What the disk holds when power fails after `end` operations: everything synced, and of the
    // rest what the seed decides. *choices becomes a hash of what was decided.
    DiskImage power_failure(size_t end, uint64_t seed, uint64_t* choices) const;
    // The process dies after `end` operations and the machine lives on: all is there, and what was
    // not synced still is not. To be started from with restart().
    void restart_from(const SimulatedDisk& died, size_t end);

    // For disks that lie: a sync of a path for which this is true does nothing.
    std::function<bool(const std::string& path)> loses_sync;

  private:
    struct Operation {
        enum Kind : uint8_t { link, unlink, write, resize, sync } kind;
        int inode = 0;       // link, unlink: the directory
        std::string name;    // link, unlink: of the entry
        int target = 0;      // link: what the name is given to
        int64_t offset = 0;  // write; resize: the size
        std::vector<uint8_t> bytes;
        size_t synced_at = SIZE_MAX;  // the operation from which on it is durable
    };
    struct OpenFile {
        int inode = -1;  // -1: closed
        std::string path;
        std::string listed;  // last entry that getdents returned
    };
    struct Fate;

    void make_layer();
    static SimulatedDisk& self(void* context) { return *static_cast<SimulatedDisk*>(context); }
    void add(Operation operation);
    static void apply(DiskImage& image, const Operation& operation, Fate* fate);
    // The inode of a path, or -1 and errno; *parent and *name say where it is or would be.
    int find(const char* path, int* parent, std::string* name) const;
    int file_of(int fd) const;
    int new_inode(bool is_directory, int parent, const std::string& name);
    int open(const char* path, int flags);
    int sync(int fd);
    int rename(const char* from, const char* to);
    int remove(const char* path, bool is_directory);
    int64_t list(int fd, void* buffer, int64_t size_bytes);

    DiskImage durable_;  // before the log
    DiskImage now_;
    std::vector<Operation> log_;
    std::vector<OpenFile> open_;
    FileLayer layer_ = {};
};

}  // namespace plumb
