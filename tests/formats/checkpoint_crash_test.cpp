// Power fails at any moment. A save and the retention after it are recorded call by call; for every
// prefix of the calls, what was synced is kept and of the rest an arbitrary subset, down to single
// sectors and single directory entries, as the standard allows a disk to do. Whatever then looks
// like a checkpoint must be one, and nothing that was reported may be lost.
#include <fcntl.h>
#include <gtest/gtest.h>

#include <map>

#include "tests/formats/checkpoint_fixture.h"

namespace plumb {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kSector = 512;

struct Operation {
    enum Kind { make_directory, remove_directory, create, rename, unlink, write, resize, sync };
    Kind kind;
    std::string path;  // relative to the folder; of a sync: what was synced
    std::string to;    // rename
    int inode = -1;    // whose content, or which file the name is given to
    int64_t offset = 0;
    std::vector<uint8_t> bytes;
};

// Names and contents; directories are names with inode -1.
struct Disk {
    std::map<std::string, int> names;
    std::map<int, std::vector<uint8_t>> contents;
};

std::string parent_of(const std::string& path) {
    const size_t slash = path.rfind('/');
    return slash == std::string::npos ? "" : path.substr(0, slash);
}

// A file layer that does and records every call that changes or syncs something.
struct Recorder {
    std::string folder;
    Disk before;
    std::map<std::string, int> names;  // as they are now
    std::map<int, std::string> open_paths;
    int inode_count = 0;
    std::vector<Operation> log;
    FileLayer layer = posix_files();

    std::string relative(const char* path) const {
        return fs::path(path).lexically_relative(folder).generic_string();
    }
    static Recorder& self(void* context) { return *static_cast<Recorder*>(context); }
    static const FileLayer& real() { return posix_files(); }

    explicit Recorder(const std::string& path) : folder(path) {
        for (const auto& entry : fs::recursive_directory_iterator(folder)) {
            const std::string name = relative(entry.path().c_str());
            before.names[name] = entry.is_directory() ? -1 : inode_count;
            if (!entry.is_directory())
                before.contents[inode_count++] = read_bytes(entry.path().string());
        }
        names = before.names;
        layer.context = this;
        layer.open = [](void* c, const char* p, int flags, unsigned mode) {
            const int fd = real().open(nullptr, p, flags, mode);
            if (fd >= 0) self(c).opened(fd, self(c).relative(p), flags);
            return fd;
        };
        layer.pwrite = [](void* c, int fd, const void* d, int64_t n, int64_t at) -> int64_t {
            const auto* bytes = static_cast<const uint8_t*>(d);
            self(c).add(Operation::write, fd, at, {bytes, bytes + n});
            return real().pwrite(nullptr, fd, d, n, at);
        };
        layer.fallocate = [](void* c, int fd, int64_t n) {
            self(c).add(Operation::resize, fd, n, {});
            return real().fallocate(nullptr, fd, n);
        };
        layer.ftruncate = [](void* c, int fd, int64_t n) {
            self(c).add(Operation::resize, fd, n, {});
            return real().ftruncate(nullptr, fd, n);
        };
        layer.fsync = [](void* c, int fd) {
            self(c).add(Operation::sync, fd, 0, {});
            return 0;
        };
        layer.fdatasync = layer.fsync;
        layer.mkdir = [](void* c, const char* p, unsigned mode) {
            self(c).log.push_back({Operation::make_directory, self(c).relative(p), "", -1, 0, {}});
            self(c).names[self(c).relative(p)] = -1;
            return real().mkdir(nullptr, p, mode);
        };
        layer.rmdir = [](void* c, const char* p) {
            self(c).log.push_back(
                {Operation::remove_directory, self(c).relative(p), "", -1, 0, {}});
            return real().rmdir(nullptr, p);
        };
        layer.unlink = [](void* c, const char* p) {
            self(c).log.push_back({Operation::unlink, self(c).relative(p), "", -1, 0, {}});
            self(c).names.erase(self(c).relative(p));
            return real().unlink(nullptr, p);
        };
        layer.rename = [](void* c, const char* a, const char* b) {
            Recorder& r = self(c);
            const int inode = r.names.at(r.relative(a));
            r.log.push_back({Operation::rename, r.relative(a), r.relative(b), inode, 0, {}});
            r.names.erase(r.relative(a));
            r.names[r.relative(b)] = inode;
            return real().rename(nullptr, a, b);
        };
    }
    Recorder(const Recorder&) = delete;
    Recorder& operator=(const Recorder&) = delete;

    void opened(int fd, const std::string& path, int flags) {
        open_paths[fd] = path == "." ? "" : path;
        if ((flags & O_CREAT) == 0) return;
        if (names.count(path) == 0) {
            names[path] = inode_count++;
            log.push_back({Operation::create, path, "", names[path], 0, {}});
        }
        if ((flags & O_TRUNC) != 0) add(Operation::resize, fd, 0, {});
    }
    void add(Operation::Kind kind, int fd, int64_t offset, std::vector<uint8_t> bytes) {
        const std::string& path = open_paths.at(fd);
        const int inode = path.empty() ? -1 : names.at(path);
        log.push_back({kind, path, "", inode, offset, std::move(bytes)});
    }

    // Whether the call is sure to have reached the disk when power fails before call `end`.
    bool durable(size_t call, size_t end) const {
        const Operation& op = log[call];
        const bool content = op.kind == Operation::write || op.kind == Operation::resize;
        for (size_t s = call + 1; s < end; ++s) {
            if (log[s].kind != Operation::sync) continue;
            if (content ? log[s].inode == op.inode && op.inode >= 0
                        : log[s].inode < 0 && log[s].path == parent_of(op.path))
                return true;
        }
        return false;
    }

    Disk crashed(size_t end, uint64_t seed) const {
        Disk disk = before;
        for (size_t call = 0; call < end; ++call) {
            const Operation& op = log[call];
            const bool sure = durable(call, end);
            const Philox4 r = philox(seed, call, 0);
            // Of what was not synced: nothing, all, or (of writes) some sectors.
            if (!sure && r.word[0] % 3 == 0) continue;
            const bool whole = sure || r.word[0] % 3 == 1;
            auto& content = disk.contents[op.inode];
            switch (op.kind) {
                case Operation::make_directory:
                case Operation::create:
                    disk.names[op.path] = op.inode;
                    break;
                case Operation::remove_directory:
                case Operation::unlink:
                    disk.names.erase(op.path);
                    break;
                case Operation::rename:
                    disk.names.erase(op.path);
                    disk.names[op.to] = op.inode;
                    break;
                case Operation::resize:
                    content.resize(static_cast<size_t>(op.offset));
                    break;
                case Operation::write:
                    for (size_t b = 0; b < op.bytes.size(); ++b) {
                        const int64_t at = op.offset + static_cast<int64_t>(b);
                        const auto sector = static_cast<uint64_t>(at / kSector);
                        if (!whole && philox(seed, call, 1 + sector).word[0] % 2 == 0) continue;
                        if (content.size() <= static_cast<size_t>(at))
                            content.resize(static_cast<size_t>(at) + 1);
                        content[static_cast<size_t>(at)] = op.bytes[b];
                    }
                    break;
                case Operation::sync:
                    break;
            }
        }
        return disk;
    }
};

void put_on_disk(const Disk& disk, const std::string& folder) {
    for (const auto& [name, inode] : disk.names)  // sorted: a directory before what is in it
        if (inode < 0) fs::create_directory(folder + "/" + name);
    for (const auto& [name, inode] : disk.names)
        if (inode >= 0 && fs::exists(folder + "/" + parent_of(name)))
            write_bytes(folder + "/" + name, disk.contents.at(inode));
}

TEST(Crash, AtAnyMomentEveryCheckpointIsWholeAndNoneThatWasReportedIsLost) {
    const TemporaryFolder folder;
    std::vector<State> states = {small_state(0), small_state(1), small_state(2)};
    ASSERT_TRUE(Saver(states[0]).save(folder.path(), 0).ok());
    ASSERT_TRUE(Saver(states[1]).save(folder.path(), 1).ok());
    Recorder recorder(folder.path());
    ASSERT_TRUE(Saver(states[2]).save(folder.path(), 2, recorder.layer).ok());
    const size_t saved_at = recorder.log.size();
    int removed = 0;
    ASSERT_TRUE(
        keep_newest(recorder.layer, folder.path().c_str(), states[0].run, 2, 0, &removed).ok());
    ASSERT_EQ(removed, 1);
    ASSERT_GT(recorder.log.size(), saved_at + 4);

    int with_new = 0;
    int with_old = 0;
    for (size_t end = 0; end <= recorder.log.size(); ++end) {
        for (uint64_t seed = 0; seed < 24; ++seed) {
            const TemporaryFolder after;
            put_on_disk(recorder.crashed(end, seed), after.path());
            const std::vector<StepEntry> steps = find_steps(after.path());
            bool found[3] = {};
            for (const StepEntry& entry : steps) {
                ASSERT_EQ(entry.state, StepState::committed) << end << " " << seed;
                CheckpointReader reader(after.path() + "/" + entry.name);
                expect_holds(reader, states[static_cast<size_t>(entry.step)]);
                found[entry.step] = true;
            }
            ASSERT_TRUE(found[1]) << end << " " << seed;
            ASSERT_TRUE(found[0] || end > saved_at) << end << " " << seed;
            ASSERT_TRUE(found[2] || end < saved_at) << end << " " << seed;
            with_new += found[2] ? 1 : 0;
            with_old += found[0] ? 1 : 0;
            ASSERT_TRUE(
                remove_uncommitted(posix_files(), after.path().c_str(), states[0].run, &removed)
                    .ok());
            ASSERT_EQ(find_steps(after.path()).size(), steps.size());
        }
    }
    EXPECT_GT(with_new, 100);
    EXPECT_GT(with_old, 100);
}

TEST(Crash, FoldersMadeAreThereAfterwards) {
    const TemporaryFolder folder;
    Recorder recorder(folder.path());
    const std::string path = folder.path() + "//a/b///c/";
    ASSERT_TRUE(make_directories(recorder.layer, path.c_str()).ok());
    EXPECT_TRUE(fs::is_directory(folder.path() + "/a/b/c"));
    for (uint64_t seed = 0; seed < 24; ++seed) {
        const Disk disk = recorder.crashed(recorder.log.size(), seed);
        for (const char* name : {"a", "a/b", "a/b/c"}) EXPECT_EQ(disk.names.count(name), 1u);
    }
    const size_t calls = recorder.log.size();
    ASSERT_TRUE(make_directories(recorder.layer, path.c_str()).ok()) << "it exists";
    for (size_t call = calls; call < recorder.log.size(); ++call)
        EXPECT_EQ(recorder.log[call].kind, Operation::make_directory) << "nothing to sync";
}

}  // namespace
}  // namespace plumb
