#include "runtime/engine/product_table.h"

#include <fcntl.h>
#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <optional>
#include <utility>

#include "formats/checkpoint_layout.h"
#include "kernels/cuda/gemm_table.h"

namespace plumb {

namespace {

std::string path_in(const std::string& folder, Gpu& gpu) {
    return folder + "/" + gpu.products_file();
}

// A file's text; nothing where there is no file. One that is too long for a table is cut: it is
// damaged either way.
Status read_table(const std::string& path, const FileLayer& files,
                  std::optional<std::string>* text) {
    text->reset();
    int fd = -1;
    Status status = open_file(files, path.c_str(), O_RDONLY, &fd);
    if (status.system_errno == ENOENT || status.system_errno == ENOTDIR) return {};
    if (!status.ok()) return status;
    int64_t size_bytes = 0;
    status = measure_file(files, fd, path.c_str(), &size_bytes);
    std::string read;
    if (status.ok()) {
        read.resize(static_cast<size_t>(std::min(size_bytes, cuda::kGemmTableBytesMax + 1)));
        status =
            read_fully(files, fd, path.c_str(), read.data(), static_cast<int64_t>(read.size()), 0);
    }
    const Status closed = close_file(files, fd, path.c_str());
    if (status.ok()) *text = std::move(read);
    return status.ok() ? closed : status;
}

Status write_table(const std::string& folder, const std::string& path, const std::string& text,
                   const FileLayer& files) {
    const std::string temporary = path + ".tmp";
    Status status = make_directories(files, folder.c_str());
    int fd = -1;
    if (status.ok())
        status = open_file(files, temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC, &fd);
    if (!status.ok()) return status;
    status = write_fully(files, fd, temporary.c_str(), text.data(),
                         static_cast<int64_t>(text.size()), 0);
    if (status.ok()) status = sync_file(files, fd, temporary.c_str());
    const Status closed = close_file(files, fd, temporary.c_str());
    if (status.ok()) status = closed;
    if (status.ok()) status = rename_file(files, temporary.c_str(), path.c_str());
    if (status.ok()) return sync_directory(files, folder.c_str());
    static_cast<void>(remove_file(files, temporary.c_str()));
    return status;
}

}  // namespace

std::string products_folder_of(const std::string& checkpoint) {
    const std::filesystem::path folder(checkpoint);
    std::error_code unreadable;  // loading says so
    if (!std::filesystem::exists(folder / kManifestName, unreadable)) return checkpoint;
    return (std::filesystem::absolute(folder, unreadable) / "..").lexically_normal();
}

std::string load_products(const std::vector<std::string>& folders, Gpu& gpu, bool measure,
                          const FileLayer& files) {
    std::optional<std::string> text;
    std::string path, why;
    for (const std::string& folder : folders) {
        path = path_in(folder, gpu);
        const Status status = read_table(path, files, &text);
        if (!status.ok() && why.empty()) why = status.message;
        if (text) break;
    }
    const std::string refused = gpu.use_products(text.value_or(""), measure);
    // To the GPU an empty text is no table, to a user it is a damaged one.
    const std::string reason = text && text->empty() ? "it is empty" : refused;
    if (text && reason.empty()) return why.empty() ? "" : fmt::format("{}; {} is used", why, path);
    if (why.empty() && !reason.empty()) why = fmt::format("{} is not used: {}", path, reason);
    if (why.empty()) return "";
    return why + (measure ? "; the algorithms of products are measured anew"
                          : "; products take cuBLASLt's first proposals");
}

std::string store_products(const std::string& folder, Gpu& gpu, const FileLayer& files) {
    std::string table = gpu.products().table;
    if (table.empty()) return "";
    const std::string path = path_in(folder, gpu);
    std::optional<std::string> there;
    const Status read = read_table(path, files, &there);
    if (!read.ok())  // perhaps it can be tomorrow
        return fmt::format("{}; it is left as it is, and the algorithms of this run are not stored",
                           read.message);
    cuda::GemmTable before, now;
    const bool kept = cuda::parse_gemm_table(table, &now).empty() &&
                      cuda::parse_gemm_table(there.value_or(""), &before).empty() &&
                      before.heading == now.heading;
    // What this start could not read then, or another run has stored since.
    if (kept) table = cuda::format_gemm_table(cuda::merged(before, now));
    if (there == table) return "";
    const Status written = write_table(folder, path, table, files);
    if (!written.ok())
        return fmt::format("{}; the algorithms of products are not stored", written.message);
    return there && !kept ? path + " was no table of this GPU and is replaced" : "";
}

std::string products_line(const GpuProducts& products) {
    if (products.taken + products.tuned == 0) return "";
    return fmt::format("products: {} algorithms from the table, {} measured in {:.1f} s",
                       products.taken, products.tuned, products.tuning_ms / 1000);
}

}  // namespace plumb
