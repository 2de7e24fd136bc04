#include "kernels/cuda/gemm_table.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <charconv>
#include <iterator>
#include <limits>
#include <utility>

namespace plumb::cuda {

namespace {

constexpr std::string_view kTitle = "plumb gemm algorithms 1";
constexpr std::string_view kColumns =
    "m n k in out a a_stride b b_stride c_stride a_align b_align c_align add_align bias_align "
    "tf32 time_us tried algorithm";
constexpr size_t kGpuNameMax = 128;
constexpr int64_t kSizeMax = int64_t{1} << 48;
constexpr int64_t kTimeMax = 1'000'000'000'000;

constexpr Dtype kDtypes[] = {Dtype::f32, Dtype::bf16, Dtype::f16};

void append_entry(const GemmEntry& e, std::string* text) {
    const ProductKey& p = e.product;
    const auto order = [](bool transposed) { return transposed ? "columns" : "rows"; };
    fmt::format_to(std::back_inserter(*text), "{} {} {} {} {} {} {} {} {} {} {} {} {} {} {} {} ",
                   p.m, p.n, p.k, dtype_name(p.in), dtype_name(p.out), order(p.a_transposed),
                   p.a_stride, order(p.b_transposed), p.b_stride, p.c_stride, p.a_align, p.b_align,
                   p.c_align, p.add_align, p.bias_align, p.tf32 ? 1 : 0);
    fmt::format_to(std::back_inserter(*text), "{}.{:03} {} ", e.time_ns / 1000, e.time_ns % 1000,
                   e.tried);
    for (const uint8_t byte : e.algorithm)
        fmt::format_to(std::back_inserter(*text), "{:02x}", byte);
    *text += '\n';
}

// Reads a text line by line and each line word by word; what comes after a mistake reads as
// nothing, and the first mistake is kept.
class Reader {
  public:
    explicit Reader(std::string_view text) : text_(text) {}

    const std::string& error() const { return error_; }
    bool failed() const { return !error_.empty(); }
    void fail(const std::string& what) {
        if (!failed()) error_ = fmt::format("line {}: {}", number_, what);
    }

    void next_line() {
        if (failed()) return;
        ++number_;
        const size_t end = text_.find('\n');
        if (end == std::string_view::npos) return fail("it is missing or cut");
        line_ = text_.substr(0, end);
        text_.remove_prefix(end + 1);
    }
    void end_line() {
        if (!line_.empty()) fail("there is more in it than there should be");
    }
    void end_text() {
        ++number_;
        if (!text_.empty()) fail("there should be no more lines");
    }

    std::string_view rest() { return std::exchange(line_, {}); }
    std::string_view word() {
        const size_t end = std::min(line_.find(' '), line_.size());
        const std::string_view found = line_.substr(0, end);
        line_.remove_prefix(std::min(end + 1, line_.size()));
        return found;
    }
    int64_t number(const char* name, int64_t least, int64_t most) {
        return number(name, word(), least, most);
    }
    int64_t number(const char* name, std::string_view found, int64_t least, int64_t most) {
        int64_t value = 0;
        const char* end = found.data() + found.size();
        const auto [at, error] = std::from_chars(found.data(), end, value);
        if (error == std::errc() && at == end && value >= least && value <= most) return value;
        fail(
            fmt::format("{} is \"{}\"; it must be from {} to {}", name, shown(found), least, most));
        return least;
    }
    // The index of the word in `choices`.
    template <size_t count>
    size_t choice(const char* name, const std::array<std::string_view, count>& choices) {
        const std::string_view found = word();
        for (size_t i = 0; i < count; ++i)
            if (found == choices[i]) return i;
        fail(fmt::format("{} is \"{}\"; it must be {}", name, shown(found),
                         fmt::join(choices, " or ")));
        return 0;
    }

  private:
    // What stands in a damaged file goes to a terminal.
    static std::string shown(std::string_view found) {
        std::string text(found.substr(0, 40));
        for (char& c : text)
            if (c < ' ' || c > '~') c = '?';
        return text;
    }

    std::string_view text_;
    std::string_view line_;
    int number_ = 0;
    std::string error_;
};

uint16_t read_align(Reader* in, const char* name, bool may_miss) {
    const int64_t value = in->number(name, may_miss ? 0 : 1, kAlignMax);
    if ((value & (value - 1)) != 0) in->fail(fmt::format("{} is no power of two", name));
    return static_cast<uint16_t>(value);
}

ProductKey read_product(Reader* in) {
    const std::array<std::string_view, 3> dtypes = {dtype_name(kDtypes[0]), dtype_name(kDtypes[1]),
                                                    dtype_name(kDtypes[2])};
    const std::array<std::string_view, 2> orders = {"rows", "columns"};
    ProductKey p = {};
    p.m = in->number("m", 1, kSizeMax);
    p.n = in->number("n", 1, kSizeMax);
    p.k = in->number("k", 1, kSizeMax);
    p.in = kDtypes[in->choice("in", dtypes)];
    p.out = kDtypes[in->choice("out", dtypes)];
    p.a_transposed = in->choice("a", orders) == 1;
    p.a_stride = in->number("a_stride", 1, kSizeMax);
    p.b_transposed = in->choice("b", orders) == 1;
    p.b_stride = in->number("b_stride", 1, kSizeMax);
    p.c_stride = in->number("c_stride", 1, kSizeMax);
    p.a_align = read_align(in, "a_align", false);
    p.b_align = read_align(in, "b_align", false);
    p.c_align = read_align(in, "c_align", false);
    p.add_align = read_align(in, "add_align", true);
    p.bias_align = read_align(in, "bias_align", true);
    p.tf32 = in->number("tf32", 0, p.in == Dtype::f32 ? 1 : 0) == 1;
    return p;
}

GemmEntry read_entry(Reader* in) {
    GemmEntry e;
    e.product = read_product(in);
    const std::string_view time = in->word();
    const size_t point = std::min(time.find('.'), time.size());
    e.time_ns =
        1000 * in->number("time_us", time.substr(0, point), 0, kTimeMax / 1000) +
        in->number("time_us's fraction", time.substr(std::min(point + 1, time.size())), 0, 999);
    e.tried = static_cast<int32_t>(in->number("tried", 1, kGemmCandidates));
    const std::string_view hex = in->word();
    if (hex.size() != 2 * e.algorithm.size()) {
        in->fail(fmt::format("the algorithm has {} digits; it must have {}", hex.size(),
                             2 * e.algorithm.size()));
        return e;
    }
    for (size_t i = 0; i < e.algorithm.size(); ++i) {
        const char* digits = hex.data() + 2 * i;
        if (std::from_chars(digits, digits + 2, e.algorithm[i], 16).ptr != digits + 2)
            in->fail("the algorithm is not in hex");
    }
    in->end_line();
    return e;
}

// A line "name value".
void expect_word(Reader* in, std::string_view name) {
    in->next_line();
    if (in->word() != name) in->fail(fmt::format("it must begin with \"{} \"", name));
}
int64_t read_count(Reader* in, const char* name, int64_t most) {
    expect_word(in, name);
    const int64_t value = in->number(name, 0, most);
    in->end_line();
    return value;
}

GemmHeading read_heading(Reader* in) {
    GemmHeading heading;
    in->next_line();
    if (in->rest() != kTitle) in->fail(fmt::format("it must be \"{}\"", kTitle));
    expect_word(in, "gpu");
    heading.gpu = in->rest();
    if (heading.gpu.size() > kGpuNameMax) in->fail("the GPU's name is too long");
    heading.cublaslt_version = read_count(in, "cublaslt", std::numeric_limits<int32_t>::max());
    heading.workspace_bytes = read_count(in, "workspace", kSizeMax);
    return heading;
}

}  // namespace

std::string table_file_name(const GemmHeading& heading) {
    constexpr size_t kShownMax = 40;
    Hasher hasher;
    hasher.text(heading.gpu);
    hasher.number(heading.cublaslt_version);
    hasher.number(heading.workspace_bytes);
    std::string name = heading.gpu.substr(0, kShownMax);
    for (char& c : name)
        if (std::isalnum(static_cast<unsigned char>(c)) == 0) c = '-';
    return fmt::format("gemm_algorithms-{}-{:08x}.txt", name,
                       static_cast<uint32_t>(hasher.finish().low));
}

std::string format_gemm_table(const GemmTable& table) {
    const GemmHeading& h = table.heading;
    std::string text =
        fmt::format("{}\ngpu {}\ncublaslt {}\nworkspace {}\nproducts {}\n{}\n", kTitle, h.gpu,
                    h.cublaslt_version, h.workspace_bytes, table.entries.size(), kColumns);
    std::vector<const GemmEntry*> sorted;
    for (const GemmEntry& entry : table.entries) sorted.push_back(&entry);
    std::sort(sorted.begin(), sorted.end(),
              [](const GemmEntry* a, const GemmEntry* b) { return a->product < b->product; });
    for (const GemmEntry* entry : sorted) append_entry(*entry, &text);
    const Hash128 hash = hash128(text.data(), static_cast<int64_t>(text.size()));
    return text + "xxh3 " + to_hex(hash) + "\n";
}

std::string parse_gemm_table(std::string_view text, GemmTable* table) {
    if (static_cast<int64_t>(text.size()) > kGemmTableBytesMax)
        return fmt::format("it has {} bytes; a table has at most {}", text.size(),
                           kGemmTableBytesMax);
    Reader in(text);
    GemmTable read;
    read.heading = read_heading(&in);
    const int64_t count = read_count(&in, "products", kProductsMax);
    in.next_line();
    if (in.rest() != kColumns) in.fail("it must name the columns");
    for (int64_t i = 0; i < count && !in.failed(); ++i) {
        in.next_line();
        read.entries.push_back(read_entry(&in));
        if (i > 0 &&
            !(read.entries[static_cast<size_t>(i - 1)].product < read.entries.back().product))
            in.fail("products must be in order, each once");
    }
    expect_word(&in, "xxh3");
    in.rest();
    in.end_text();
    if (in.failed()) return in.error();
    // What can be written in two ways, and the hash.
    if (format_gemm_table(read) != text) return "its hash or spelling is not what was written";
    *table = std::move(read);
    return "";
}

std::string difference(const GemmHeading& table, const GemmHeading& machine) {
    if (table.gpu != machine.gpu)
        return fmt::format("its GPU is {}, this one is {}", table.gpu, machine.gpu);
    if (table.cublaslt_version != machine.cublaslt_version)
        return fmt::format("its cuBLASLt is {}, this one is {}", table.cublaslt_version,
                           machine.cublaslt_version);
    if (table.workspace_bytes != machine.workspace_bytes)
        return fmt::format("its workspace has {} bytes, this one {}", table.workspace_bytes,
                           machine.workspace_bytes);
    return "";
}

const GemmEntry* find_entry(const GemmTable& table, const ProductKey& product) {
    const auto at = std::lower_bound(
        table.entries.begin(), table.entries.end(), product,
        [](const GemmEntry& entry, const ProductKey& p) { return entry.product < p; });
    return at != table.entries.end() && at->product == product ? &*at : nullptr;
}

GemmTable merged(const GemmTable& before, GemmTable now) {
    const auto by_product = [](const GemmEntry& a, const GemmEntry& b) {
        return a.product < b.product;
    };
    std::sort(now.entries.begin(), now.entries.end(), by_product);
    GemmTable both = now;
    for (const GemmEntry& entry : before.entries)
        if (both.entries.size() < kProductsMax && find_entry(now, entry.product) == nullptr)
            both.entries.push_back(entry);
    std::sort(both.entries.begin(), both.entries.end(), by_product);
    return both;
}

Hash128 algorithms_hash(const GemmTable& table) {
    if (table.entries.empty()) return {};
    Hasher hasher;
    hasher.text(table.heading.gpu);
    hasher.number(table.heading.cublaslt_version);
    hasher.number(static_cast<int64_t>(table.entries.size()));
    for (const GemmEntry& entry : table.entries) {
        const ProductKey& p = entry.product;
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

int choose_candidate(const float* us, int count) noexcept {
    const float limit = *std::min_element(us, us + count) * 1.01F;
    return static_cast<int>(std::find_if(us, us + count, [=](float t) { return t <= limit; }) - us);
}

}  // namespace plumb::cuda
