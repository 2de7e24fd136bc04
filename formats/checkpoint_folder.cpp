#include "formats/checkpoint_folder.h"

#include <fcntl.h>

#include <cerrno>
#include <cstdio>
#include <cstring>

#include "formats/checkpoint_validate.h"
#include "runtime/base/check.h"

namespace plumb {

bool older(const StepEntry& a, const StepEntry& b) noexcept {
    if (a.step != b.step) return a.step < b.step;
    if (a.created_ns != b.created_ns) return a.created_ns < b.created_ns;
    return std::strcmp(a.name, b.name) < 0;
}

namespace {

// Reads the first `size_bytes` of a file.
Status read_head(const FileLayer& files, const char* path, void* data,
                 int64_t size_bytes) noexcept {
    int fd = -1;
    Status status = open_file(files, path, O_RDONLY, &fd);
    if (!status.ok()) return status;
    status = read_fully(files, fd, path, data, size_bytes, 0);
    const Status closed = close_file(files, fd, path);
    return status.ok() ? closed : status;
}

// Whose uncommitted directory it is, from its data file; zero when that does not say.
Uuid owner(const FileLayer& files, const char* step_path) noexcept {
    Path path;
    DataHeader header;
    if (!join_path(step_path, data_file_name(0).text, &path).ok() ||
        !read_head(files, path.text, &header, sizeof header).ok() ||
        std::memcmp(header.magic, kDataMagic, sizeof kDataMagic) != 0 ||
        hash128(&header, offsetof(DataHeader, own_hash)) != header.own_hash)
        return {};
    return header.run;
}

// False when `name` is not a step directory.
bool judge(const FileLayer& files, const char* directory, const char* name,
           StepEntry* entry) noexcept {
    uint32_t save_id_low = 0;
    if (!parse_step_name(name, &entry->step, &save_id_low)) return false;
    std::memcpy(entry->name, name, std::strlen(name) + 1);
    entry->state = StepState::damaged;
    Path step_path;
    Path path;
    ManifestHeader header;
    entry->status = join_path(directory, name, &step_path);
    if (entry->status.ok()) entry->status = join_path(step_path.text, kManifestName, &path);
    if (entry->status.ok()) entry->status = read_head(files, path.text, &header, sizeof header);
    if (entry->status.system_errno == ENOTDIR) return false;
    if (entry->status.system_errno == ENOENT) {
        entry->state = StepState::uncommitted;
        entry->status = {};
        entry->run = owner(files, step_path.text);
        return true;
    }
    if (!entry->status.ok()) return true;
    entry->status = validate_manifest_header(
        path.text, {reinterpret_cast<const uint8_t*>(&header), sizeof header});
    if (entry->status.ok() &&
        (header.record.step != entry->step || static_cast<uint32_t>(header.save_id) != save_id_low))
        entry->status = failure(StatusCode::damaged, "%s is of step %lld and save %08x, not %s",
                                path.text, static_cast<long long>(header.record.step),
                                static_cast<uint32_t>(header.save_id), name);
    if (!entry->status.ok()) return true;
    entry->state = StepState::committed;
    entry->run = header.run;
    entry->created_ns = header.created_ns;
    return true;
}

struct Search {
    const StepEntry* limit = nullptr;  // only entries older than this
    const Uuid* run = nullptr;
    int64_t keep_every = 0;
    bool found = false;
    StepEntry entry;
};

bool is_candidate(const Search& search, const StepEntry& entry) noexcept {
    return entry.state == StepState::committed && entry.run == *search.run &&
           (search.limit == nullptr || older(entry, *search.limit));
}

// Newest committed checkpoint of the run that is older than search.limit.
bool visit_newest(void* user, const StepEntry& entry) noexcept {
    auto& search = *static_cast<Search*>(user);
    if (is_candidate(search, entry) && (!search.found || older(search.entry, entry))) {
        search.found = true;
        search.entry = entry;
    }
    return true;
}

bool visit_removable(void* user, const StepEntry& entry) noexcept {
    auto& search = *static_cast<Search*>(user);
    if (!is_candidate(search, entry)) return true;
    if (search.keep_every > 0 && entry.step % search.keep_every == 0) return true;
    search.found = true;
    search.entry = entry;
    return false;
}

bool visit_uncommitted(void* user, const StepEntry& entry) noexcept {
    auto& search = *static_cast<Search*>(user);
    if (entry.state != StepState::uncommitted || !(entry.run == *search.run || entry.run == Uuid{}))
        return true;
    search.found = true;
    search.entry = entry;
    return false;
}

// Removes what `visit` finds, one listing after the other, until it finds nothing.
Status remove_all(const FileLayer& files, const char* directory, VisitStep visit, Search& search,
                  int* removed) noexcept {
    while (true) {
        search.found = false;
        Status status = list_steps(files, directory, visit, &search);
        if (!status.ok() || !search.found) return status;
        status = remove_step(files, directory, search.entry.name);
        if (!status.ok()) return status;
        ++*removed;
    }
}

}  // namespace

Status list_steps(const FileLayer& files, const char* directory, VisitStep visit,
                  void* user) noexcept {
    struct Context {
        const FileLayer& files;
        const char* directory;
        VisitStep visit;
        void* user;
    } context{files, directory, visit, user};
    return list_directory(
        files, directory,
        [](void* opaque, const char* name) {
            auto& c = *static_cast<Context*>(opaque);
            StepEntry entry;
            return !judge(c.files, c.directory, name, &entry) || c.visit(c.user, entry);
        },
        &context);
}

Status remove_step(const FileLayer& files, const char* directory, const char* name) noexcept {
    Path step_path;
    Path path;
    Status status = join_path(directory, name, &step_path);
    if (status.ok()) status = join_path(step_path.text, kManifestName, &path);
    if (status.ok()) status = remove_file(files, path.text);
    if (status.ok()) status = sync_directory(files, step_path.text);
    if (!status.ok()) return status;
    struct Context {
        const FileLayer& files;
        const char* step_path;
        int removed;
        Status status;
    } context{files, step_path.text, 0, {}};
    const auto remove_entry = [](void* opaque, const char* entry) {
        auto& c = *static_cast<Context*>(opaque);
        const size_t length = std::strlen(entry);
        const bool ours = std::strcmp(entry, kManifestTemporaryName) == 0 ||
                          (std::strncmp(entry, "data-", 5) == 0 && length > 4 &&
                           std::strcmp(entry + length - 4, ".pck") == 0);
        if (!ours) return true;
        Path file;
        c.status = join_path(c.step_path, entry, &file);
        if (c.status.ok()) c.status = remove_file(c.files, file.text);
        ++c.removed;
        return c.status.ok();
    };
    do {  // some file systems skip entries of a listing while others are removed
        context.removed = 0;
        status = list_directory(files, step_path.text, remove_entry, &context);
        if (!status.ok()) return status;
    } while (context.removed > 0 && context.status.ok());
    if (!context.status.ok()) return context.status;
    status = remove_directory(files, step_path.text);
    return status.ok() ? sync_directory(files, directory) : status;
}

Status set_aside_step(const FileLayer& files, const char* directory, const char* name) noexcept {
    FileName damaged_name;
    Path from;
    Path to;
    std::snprintf(damaged_name.text, sizeof damaged_name.text, "%s%s", kDamagedPrefix, name);
    Status status = join_path(directory, name, &from);
    if (status.ok()) status = join_path(directory, damaged_name.text, &to);
    if (status.ok()) status = rename_file(files, from.text, to.text);
    return status.ok() ? sync_directory(files, directory) : status;
}

Status keep_newest(const FileLayer& files, const char* directory, const Uuid& run, int keep,
                   int64_t keep_every, int* removed) noexcept {
    CHECK_NOTE(keep >= 2, "a damaged newest checkpoint needs the one before");
    *removed = 0;
    StepEntry limit;
    Search search;
    search.run = &run;
    for (int k = 0; k < keep; ++k) {
        search.found = false;
        Status status = list_steps(files, directory, visit_newest, &search);
        if (!status.ok() || !search.found) return status;
        limit = search.entry;
        // A process that died between naming a MANIFEST and syncing that has left a checkpoint
        // which a power failure may still undo. What is kept is durable before anything older goes.
        Path kept;
        status = join_path(directory, limit.name, &kept);
        if (status.ok()) status = sync_directory(files, kept.text);
        if (!status.ok()) return status;
        search.limit = &limit;
    }
    search.keep_every = keep_every;
    return remove_all(files, directory, visit_removable, search, removed);
}

Status remove_uncommitted(const FileLayer& files, const char* directory, const Uuid& run,
                          int* removed) noexcept {
    *removed = 0;
    Search search;
    search.run = &run;
    return remove_all(files, directory, visit_uncommitted, search, removed);
}

}  // namespace plumb
