#include "runtime/engine/product_table.h"

#include <fcntl.h>
#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <optional>

#include "formats/checkpoint_layout.h"
#include "kernels/cuda/gemm_table.h"
#include "runtime/base/error.h"

namespace plumb {

namespace {

// Losing a table loses no checkpoint, so this is no damage (checkpoint_status.h).
void require(const Status& status) {
    if (!status.ok()) throw Error(ExitCode::io, status.message);
}

std::string path_in(const std::string& folder, const std::string& name) {
    return folder + "/" + name;
}

// A file's text; nothing where there is no file. One that is too long for a table is cut: it is
// damaged either way.
std::optional<std::string> read_table(const std::string& folder, const FileLayer& files) {
    const std::string path = path_in(folder, kProductTableName);
    int fd = -1;
    const Status opened = open_file(files, path.c_str(), O_RDONLY, &fd);
    if (opened.system_errno == ENOENT || opened.system_errno == ENOTDIR) return {};
    require(opened);
    int64_t size_bytes = 0;
    Status status = measure_file(files, fd, path.c_str(), &size_bytes);
    std::string text;
    if (status.ok()) {
        text.resize(static_cast<size_t>(std::min(size_bytes, cuda::kGemmTableBytesMax + 1)));
        status =
            read_fully(files, fd, path.c_str(), text.data(), static_cast<int64_t>(text.size()), 0);
    }
    const Status closed = close_file(files, fd, path.c_str());
    require(status);
    require(closed);
    return text;
}

Status write_table(const std::string& folder, const std::string& text, const FileLayer& files) {
    const std::string path = path_in(folder, kProductTableName), temporary = path + ".tmp";
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
    if (!std::filesystem::exists(folder / kManifestName)) return checkpoint;
    return (std::filesystem::absolute(folder) / "..").lexically_normal();
}

std::string load_products(const std::string& folder, Gpu& gpu, bool measure,
                          const FileLayer& files) {
    const std::optional<std::string> text = read_table(folder, files);
    const std::string refused = gpu.use_products(text.value_or(""), measure);
    // To the GPU an empty text is no table, to a user it is a damaged one.
    const std::string reason = text && text->empty() ? "it is empty" : refused;
    if (reason.empty()) return "";
    return fmt::format("{} is not used: {}; the algorithms of products are measured anew",
                       path_in(folder, kProductTableName), reason);
}

void store_products(const std::string& folder, Gpu& gpu, const FileLayer& files) {
    const std::string table = gpu.products().table;
    if (table.empty() || read_table(folder, files) == table) return;
    require(write_table(folder, table, files));
}

std::string products_line(const GpuProducts& products) {
    if (products.taken + products.tuned == 0) return "";
    return fmt::format("products: {} algorithms from the table, {} measured in {:.1f} s",
                       products.taken, products.tuned, products.tuning_ms / 1000);
}

Hash128 product_table_hash(const std::string& table) {
    cuda::GemmTable read;
    static_cast<void>(cuda::parse_gemm_table(table, &read));
    Hasher hasher;
    hasher.text(read.heading.gpu);
    hasher.number(read.heading.cublaslt_version);
    hasher.number(static_cast<int64_t>(read.entries.size()));
    for (const cuda::GemmEntry& entry : read.entries) {
        const cuda::ProductKey& p = entry.product;
        for (const int64_t number : {p.m, p.n, p.k, p.a_stride, p.b_stride, p.c_stride})
            hasher.number(number);
        for (const int number : {int{p.a_align}, int{p.b_align}, int{p.c_align}, int{p.add_align},
                                 int{p.bias_align}, static_cast<int>(p.in), static_cast<int>(p.out),
                                 int{p.a_transposed}, int{p.b_transposed}, int{p.tf32}})
            hasher.number(number);
        hasher.bytes(entry.algorithm.data(), static_cast<int64_t>(entry.algorithm.size()));
    }
    return hasher.finish();
}

Hash128 numerics_hash(const std::string& table, bool tf32) {
    const Hash128 products = product_table_hash(table);
    Hasher hasher;
    hasher.text("numerics 1");
    hasher.bytes(&products, sizeof products);
    hasher.number(tf32 ? 1 : 0);
    return hasher.finish();
}

}  // namespace plumb
