#include "runtime/exec/machine_limits.h"

#include <omp.h>
#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <sstream>
#include <vector>

namespace plumb {

namespace {

// -1: absent, or no number such as "max".
int64_t read_number(const std::string& path) {
    std::ifstream file(path);
    int64_t value = -1;
    return file >> value ? value : -1;
}

// The number after `key` in a file of "key number" lines; `otherwise` when there is none.
int64_t read_field(const std::string& path, const std::string& key, int64_t otherwise) {
    std::ifstream file(path);
    std::string line, name;
    while (std::getline(file, line)) {
        std::istringstream fields(line);
        int64_t value = 0;
        if (fields >> name >> value && name == key) return value;
    }
    return otherwise;
}

// The folders of a controller from this process's group up to the mount at `mount`. In a container
// the path may name folders outside what is mounted there: those hold no files, the mount does.
std::vector<std::string> folders_to(const std::string& mount, std::string path) {
    std::vector<std::string> folders;
    if (path.compare(0, 3, "/..") == 0) path.clear();  // outside the namespace
    while (!path.empty() && path != "/") {
        folders.push_back(mount + path);
        path.erase(path.rfind('/'));
    }
    folders.push_back(mount);
    return folders;
}

// Folders of v2 groups, and of v1 groups of `controller`, that bound this process.
struct GroupFolders {
    std::vector<std::string> v2, v1;
};

GroupFolders group_folders(const std::string& root, const std::string& controller) {
    const std::string mount = root + "/sys/fs/cgroup";
    // Lines are id:controllers:path; v2 has id 0 and no controllers.
    std::ifstream file(root + "/proc/self/cgroup");
    std::string line, v2_path, v1_path;
    while (std::getline(file, line)) {
        const size_t first = line.find(':');
        const size_t second = first == std::string::npos ? first : line.find(':', first + 1);
        if (second == std::string::npos || line.compare(second + 1, 1, "/") != 0) continue;
        const std::string controllers = "," + line.substr(first + 1, second - first - 1) + ",";
        if (controllers == ",,") v2_path = line.substr(second + 1);
        if (controllers.find("," + controller + ",") != std::string::npos)
            v1_path = line.substr(second + 1);
    }
    return {folders_to(mount, v2_path), folders_to(mount + "/" + controller, v1_path)};
}

// What a group leaves; INT64_MAX without a limit.
int64_t bytes_left(const std::string& folder, const char* limit_file, const char* used_file,
                   const char* cache_key) {
    const int64_t limit = read_number(folder + "/" + limit_file);
    const int64_t used = read_number(folder + "/" + used_file);
    if (limit < 0 || used < 0) return INT64_MAX;
    const int64_t cache = read_field(folder + "/memory.stat", cache_key, 0);
    return std::max<int64_t>(limit - std::max<int64_t>(used - cache, 0), 0);
}

int64_t cpus_of(int64_t quota_us, int64_t period_us) {
    return quota_us > 0 && period_us > 0 ? (quota_us - 1) / period_us + 1 : INT64_MAX;
}

}  // namespace

int64_t available_memory_bytes(const char** source, const std::string& root) {
    int64_t groups = INT64_MAX;
    const GroupFolders folders = group_folders(root, "memory");
    for (const std::string& folder : folders.v2)
        groups =
            std::min(groups, bytes_left(folder, "memory.max", "memory.current", "inactive_file"));
    for (const std::string& folder : folders.v1)
        groups = std::min(groups, bytes_left(folder, "memory.limit_in_bytes",
                                             "memory.usage_in_bytes", "total_inactive_file"));
    const int64_t free_kib = read_field(root + "/proc/meminfo", "MemAvailable:", -1);
    const int64_t machine = free_kib < 0 ? INT64_MAX : free_kib * kKiB;
    *source = groups < machine ? "left in this control group" : "available on this machine";
    return std::min(groups, machine);
}

int32_t usable_cpus(const std::string& root) {
    cpu_set_t mask;
    const bool known = sched_getaffinity(0, sizeof mask, &mask) == 0;
    // Beyond the mask's 1,024 CPUs the call fails: all that are online.
    int64_t cpus = known ? CPU_COUNT(&mask) : sysconf(_SC_NPROCESSORS_ONLN);
    // With OMP_PROC_BIND and its kin this thread was bound before main; OpenMP knows the mask.
    if (omp_get_proc_bind() != omp_proc_bind_false)
        cpus = std::max<int64_t>(cpus, omp_get_num_procs());
    const GroupFolders folders = group_folders(root, "cpu");
    for (const std::string& folder : folders.v2) {
        std::ifstream file(folder + "/cpu.max");  // "max 100000" or "quota period"
        int64_t quota_us = -1, period_us = 0;
        if (file >> quota_us >> period_us) cpus = std::min(cpus, cpus_of(quota_us, period_us));
    }
    for (const std::string& folder : folders.v1)
        cpus = std::min(cpus, cpus_of(read_number(folder + "/cpu.cfs_quota_us"),
                                      read_number(folder + "/cpu.cfs_period_us")));
    return static_cast<int32_t>(std::max<int64_t>(cpus, 1));
}

}  // namespace plumb
