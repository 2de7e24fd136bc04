#include "tests/formats/simulated_disk.h"

#include <dirent.h>
#include <fcntl.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "runtime/base/check.h"
#include "runtime/base/random.h"

namespace plumb {

namespace {

int fail(int error) {
    errno = error;
    return -1;
}

void collect(const DiskImage& image, int inode, const std::string& path,
             std::vector<std::string>& paths) {
    const DiskImage::Inode& node = image.inodes[static_cast<size_t>(inode)];
    if (!node.is_directory || (node.entries.empty() && inode != 0)) paths.push_back(path);
    for (const auto& [name, target] : node.entries)
        collect(image, target, path + "/" + name, paths);
}

}  // namespace

std::vector<std::string> DiskImage::paths() const {
    std::vector<std::string> all;
    collect(*this, 0, "", all);
    std::sort(all.begin(), all.end());
    return all;
}

std::vector<uint8_t>& DiskImage::file(const std::string& path) {
    int inode = 0;
    for (size_t at = 1; at < path.size();) {
        const size_t end = std::min(path.find('/', at), path.size());
        auto& entries = inodes[static_cast<size_t>(inode)].entries;
        const auto [entry, made] =
            entries.try_emplace(path.substr(at, end - at), static_cast<int>(inodes.size()));
        inode = entry->second;
        if (made) inodes.push_back({end < path.size(), {}, {}});
        at = end + 1;
    }
    return inodes[static_cast<size_t>(inode)].bytes;
}

// How one failure treats what was not synced. The odds themselves are drawn, with none and all
// among them: so the pure reorderings (all entries and no bytes, all bytes and no entries) are
// drawn often.
struct SimulatedDisk::Fate {
    explicit Fate(uint64_t failure_seed) : seed(failure_seed) {
        const Philox4 odds = philox(seed, UINT64_MAX, 0);
        entry_odds = odds.word[0] % 5 * 64;
        write_odds = odds.word[1] % 5 * 64;
        whole_odds = odds.word[2] % 3 * 128;
        stale = odds.word[3] % 2 == 1;
    }
    // Of the operation at hand; `part` tells its decisions apart.
    bool decide(uint64_t part, uint32_t odds) {
        const bool decided = philox(seed, operation, part).word[0] % 256 < odds;
        choices = (choices ^ (decided ? 3 : 5)) * 0x9E3779B97F4A7C15u;
        choices ^= choices >> 29;
        return decided;
    }

    uint64_t seed;
    uint32_t entry_odds;  // of 256: that an entry, or its removal, has reached the disk
    uint32_t write_odds;  // that a write has, whole or in part
    uint32_t whole_odds;  // that such a write has reached it whole
    bool stale;           // grown files show old bytes instead of zeros
    uint64_t choices = 0;
    size_t operation = 0;  // the one that is applied
};

SimulatedDisk::SimulatedDisk(DiskImage image) : durable_(std::move(image)), now_(durable_) {
    make_layer();
}

int SimulatedDisk::open_files() const {
    return static_cast<int>(
        std::count_if(open_.begin(), open_.end(), [](const OpenFile& f) { return f.inode >= 0; }));
}

void SimulatedDisk::add(Operation operation) {
    if (operation.kind == Operation::sync)
        for (Operation& earlier : log_)
            if (earlier.inode == operation.inode)
                earlier.synced_at = std::min(earlier.synced_at, log_.size());
    apply(now_, operation, nullptr);
    log_.push_back(std::move(operation));
}

// Without a fate: the whole operation.
void SimulatedDisk::apply(DiskImage& image, const Operation& operation, Fate* fate) {
    DiskImage::Inode& node = image.inodes[static_cast<size_t>(operation.inode)];
    const auto grow = [&](size_t size) {
        const size_t before = node.bytes.size();
        if (size <= before) return;
        node.bytes.resize(size);
        if (fate == nullptr || !fate->stale) return;
        // Some other file's bytes of the same place: well-formed, and wrong.
        for (size_t other = 1; other < static_cast<size_t>(operation.inode); ++other) {
            const std::vector<uint8_t>& old = image.inodes[other].bytes;
            if (old.size() <= before) continue;
            std::memcpy(&node.bytes[before], &old[before], std::min(size, old.size()) - before);
            return;
        }
    };
    switch (operation.kind) {
        case Operation::link:
            if (fate == nullptr || fate->decide(0, fate->entry_odds))
                node.entries[operation.name] = operation.target;
            break;
        case Operation::unlink:
            if (fate == nullptr || fate->decide(0, fate->entry_odds))
                node.entries.erase(operation.name);
            break;
        case Operation::resize:
            if (fate != nullptr && !fate->decide(0, fate->write_odds)) break;
            grow(static_cast<size_t>(operation.offset));
            node.bytes.resize(static_cast<size_t>(operation.offset));
            break;
        case Operation::write: {
            if (fate != nullptr && !fate->decide(0, fate->write_odds)) break;
            const bool whole = fate == nullptr || fate->decide(1, fate->whole_odds);
            const auto begin = static_cast<size_t>(operation.offset);
            const size_t end = begin + operation.bytes.size();
            if (whole || fate->decide(2, 128)) grow(end);  // else as far as sectors reach
            for (size_t from = begin; from < end;) {
                const size_t sector = from / kSectorBytes;
                const size_t to = std::min(end, (sector + 1) * kSectorBytes);
                if (whole || fate->decide(3 + sector, 128)) {
                    grow(to);
                    std::memcpy(&node.bytes[from], &operation.bytes[from - begin], to - from);
                }
                from = to;
            }
            break;
        }
        case Operation::sync:
            break;
    }
}

DiskImage SimulatedDisk::power_failure(size_t end, uint64_t seed, uint64_t* choices) const {
    DiskImage image = durable_;
    for (size_t i = image.inodes.size(); i < now_.inodes.size(); ++i)
        image.inodes.push_back({now_.inodes[i].is_directory, {}, {}});
    Fate fate(seed);
    for (size_t i = 0; i < end; ++i) {
        fate.operation = i;
        apply(image, log_[i], log_[i].synced_at < end ? nullptr : &fate);
    }
    *choices = fate.choices;
    return image;
}

void SimulatedDisk::restart_from(const SimulatedDisk& died, size_t end) {
    durable_ = now_ = died.durable_;
    for (size_t i = now_.inodes.size(); i < died.now_.inodes.size(); ++i)
        now_.inodes.push_back({died.now_.inodes[i].is_directory, {}, {}});
    log_.assign(died.log_.begin(), died.log_.begin() + static_cast<ptrdiff_t>(end));
    for (Operation& operation : log_) {
        if (operation.synced_at >= end) operation.synced_at = SIZE_MAX;
        apply(now_, operation, nullptr);
    }
    open_.clear();
}

int SimulatedDisk::find(const char* path, int* parent, std::string* name) const {
    int inode = 0;
    *parent = 0;
    for (const char* at = path + std::strspn(path, "/"); *at != '\0';) {
        const size_t length = std::strcspn(at, "/");
        if (inode < 0) return fail(ENOENT);
        if (!now_.inodes[static_cast<size_t>(inode)].is_directory) return fail(ENOTDIR);
        *parent = inode;
        name->assign(at, length);
        const auto& entries = now_.inodes[static_cast<size_t>(inode)].entries;
        const auto found = entries.find(*name);
        inode = found == entries.end() ? -1 : found->second;
        at += length;
        at += std::strspn(at, "/");
    }
    if (inode >= 0) return inode;
    fail(ENOENT);
    return -2;  // only the last part is missing
}

int SimulatedDisk::file_of(int fd) const {
    const auto index = static_cast<size_t>(fd) - 3;
    CHECK_NOTE(fd >= 3 && index < open_.size() && open_[index].inode >= 0, "not an open file");
    return open_[index].inode;
}

int SimulatedDisk::new_inode(bool is_directory, int parent, const std::string& name) {
    const auto inode = static_cast<int>(now_.inodes.size());
    now_.inodes.push_back({is_directory, {}, {}});
    add({Operation::link, parent, name, inode, 0, {}});
    return inode;
}

int SimulatedDisk::open(const char* path, int flags) {
    int parent = 0;
    std::string name;
    int inode = find(path, &parent, &name);
    const bool create = (flags & O_CREAT) != 0;
    if (inode == -1 || (inode < 0 && !create)) return -1;
    if (inode >= 0 && create && (flags & O_EXCL) != 0) return fail(EEXIST);
    if (inode < 0) inode = new_inode(false, parent, name);
    const bool is_directory = now_.inodes[static_cast<size_t>(inode)].is_directory;
    if (!is_directory && (flags & O_DIRECTORY) != 0) return fail(ENOTDIR);
    if (is_directory && (flags & O_ACCMODE) != O_RDONLY) return fail(EISDIR);
    if ((flags & O_TRUNC) != 0) add({Operation::resize, inode, "", 0, 0, {}});
    size_t slot = 0;
    while (slot < open_.size() && open_[slot].inode >= 0) ++slot;
    if (slot == open_.size()) open_.emplace_back();
    open_[slot] = {inode, path, ""};
    return static_cast<int>(slot) + 3;
}

int SimulatedDisk::sync(int fd) {
    const int inode = file_of(fd);
    if (loses_sync && loses_sync(open_[static_cast<size_t>(fd) - 3].path)) return 0;
    add({Operation::sync, inode, "", 0, 0, {}});
    return 0;
}

int SimulatedDisk::rename(const char* from, const char* to) {
    int from_parent = 0;
    int to_parent = 0;
    std::string from_name;
    std::string to_name;
    const int inode = find(from, &from_parent, &from_name);
    if (inode < 0) return -1;
    const int replaced = find(to, &to_parent, &to_name);
    if (replaced == -1) return -1;
    if (replaced >= 0 && now_.inodes[static_cast<size_t>(replaced)].is_directory)
        return fail(now_.inodes[static_cast<size_t>(replaced)].entries.empty() ? EISDIR
                                                                               : ENOTEMPTY);
    add({Operation::link, to_parent, to_name, inode, 0, {}});
    add({Operation::unlink, from_parent, from_name, 0, 0, {}});
    return 0;
}

int SimulatedDisk::remove(const char* path, bool is_directory) {
    int parent = 0;
    std::string name;
    const int inode = find(path, &parent, &name);
    if (inode < 0) return -1;
    const DiskImage::Inode& node = now_.inodes[static_cast<size_t>(inode)];
    if (node.is_directory != is_directory) return fail(is_directory ? ENOTDIR : EISDIR);
    if (!node.entries.empty()) return fail(ENOTEMPTY);
    add({Operation::unlink, parent, name, 0, 0, {}});
    return 0;
}

int64_t SimulatedDisk::list(int fd, void* buffer, int64_t size_bytes) {
    const auto& entries = now_.inodes[static_cast<size_t>(file_of(fd))].entries;
    std::string& listed = open_[static_cast<size_t>(fd) - 3].listed;
    int64_t used = 0;
    for (auto entry = entries.upper_bound(listed); entry != entries.end(); ++entry) {
        const std::string& name = entry->first;
        const auto name_bytes = static_cast<int64_t>(name.size()) + 1;
        const int64_t entry_bytes = align_up(int64_t{offsetof(dirent64, d_name)} + name_bytes, 8);
        if (used + entry_bytes > size_bytes) break;
        char* at = static_cast<char*>(buffer) + used;
        const auto record_bytes = static_cast<uint16_t>(entry_bytes);
        std::memset(at, 0, static_cast<size_t>(entry_bytes));
        std::memcpy(at + offsetof(dirent64, d_reclen), &record_bytes, sizeof record_bytes);
        std::memcpy(at + offsetof(dirent64, d_name), name.c_str(), static_cast<size_t>(name_bytes));
        used += entry_bytes;
        listed = name;
    }
    return used;
}

void SimulatedDisk::make_layer() {
    layer_.context = this;
    layer_.open = [](void* c, const char* p, int flags, unsigned) {
        return self(c).open(p, flags);
    };
    layer_.close = [](void* c, int fd) {
        self(c).file_of(fd);
        self(c).open_[static_cast<size_t>(fd) - 3].inode = -1;
        return 0;
    };
    layer_.pread = [](void* c, int fd, void* data, int64_t size_bytes, int64_t at) -> int64_t {
        const auto& bytes = self(c).now_.inodes[static_cast<size_t>(self(c).file_of(fd))].bytes;
        const int64_t left = std::max<int64_t>(0, static_cast<int64_t>(bytes.size()) - at);
        const int64_t count = std::min(size_bytes, left);
        if (count > 0)
            std::memcpy(data, &bytes[static_cast<size_t>(at)], static_cast<size_t>(count));
        return count;
    };
    layer_.pwrite = [](void* c, int fd, const void* data, int64_t size_bytes,
                       int64_t at) -> int64_t {
        const auto* bytes = static_cast<const uint8_t*>(data);
        self(c).add(
            {Operation::write, self(c).file_of(fd), "", 0, at, {bytes, bytes + size_bytes}});
        return size_bytes;
    };
    layer_.file_bytes = [](void* c, int fd) -> int64_t {
        return static_cast<int64_t>(
            self(c).now_.inodes[static_cast<size_t>(self(c).file_of(fd))].bytes.size());
    };
    layer_.free_bytes = [](void*, int) -> int64_t { return kMiB; };
    layer_.fsync = [](void* c, int fd) { return self(c).sync(fd); };
    layer_.fdatasync = layer_.fsync;
    layer_.fallocate = [](void* c, int fd, int64_t size_bytes) {
        if (size_bytes > self(c).layer_.file_bytes(c, fd))
            self(c).add({Operation::resize, self(c).file_of(fd), "", 0, size_bytes, {}});
        return 0;
    };
    layer_.ftruncate = [](void* c, int fd, int64_t size_bytes) {
        self(c).add({Operation::resize, self(c).file_of(fd), "", 0, size_bytes, {}});
        return 0;
    };
    layer_.mkdir = [](void* c, const char* path, unsigned) {
        int parent = 0;
        std::string name;
        const int inode = self(c).find(path, &parent, &name);
        if (inode >= 0) return fail(EEXIST);
        if (inode == -2) self(c).new_inode(true, parent, name);
        return inode == -2 ? 0 : -1;
    };
    layer_.rmdir = [](void* c, const char* path) { return self(c).remove(path, true); };
    layer_.unlink = [](void* c, const char* path) { return self(c).remove(path, false); };
    layer_.rename = [](void* c, const char* from, const char* to) {
        return self(c).rename(from, to);
    };
    layer_.getdents = [](void* c, int fd, void* buffer, int64_t size_bytes) {
        return self(c).list(fd, buffer, size_bytes);
    };
}

}  // namespace plumb
