#include "infer/prompt.h"

#include <fmt/format.h>

#include <cerrno>
#include <charconv>
#include <cstdio>
#include <cstring>
#include <memory>
#include <string_view>

#include "runtime/base/error.h"

namespace plumb {

namespace {

constexpr int64_t kByteTokens = 256;

void check_prompt(const std::vector<int32_t>& prompt, int64_t context, const std::string& where) {
    const auto count = static_cast<int64_t>(prompt.size());
    if (count == 0)
        throw Error(ExitCode::bad_input, where + ": the prompt is empty; give at least one token");
    if (count > context)
        throw Error(ExitCode::bad_input,
                    fmt::format("{}: the prompt has {} tokens, but the context is {} tokens "
                                "(generate.context)",
                                where, count, context));
}

}  // namespace

bool takes_text(const ModelSpec& model) {
    return model.vocab_size <= kByteTokens;
}

std::vector<int32_t> text_prompt(const std::string& bytes, const ModelSpec& model, int64_t context,
                                 const std::string& where) {
    if (!takes_text(model))
        throw Error(ExitCode::bad_input,
                    fmt::format("{}: text is taken as bytes by models of at most {} tokens, but "
                                "this one has {} and its checkpoint no tokenizer; give token ids, "
                                "as in --prompt-tokens 1,2,3",
                                where, kByteTokens, model.vocab_size));
    std::vector<int32_t> prompt;
    prompt.reserve(bytes.size());
    for (const char character : bytes) {
        const auto byte = static_cast<uint8_t>(character);
        if (byte >= model.vocab_size)
            check_token_id(byte, model.vocab_size,
                           fmt::format("{}, byte {}", where, prompt.size()));
        prompt.push_back(byte);
    }
    check_prompt(prompt, context, where);
    return prompt;
}

std::vector<int32_t> listed_prompt(const std::string& list, const ModelSpec& model, int64_t context,
                                   const std::string& where) {
    std::vector<int32_t> prompt;
    for (size_t first = 0; !list.empty() && first <= list.size();) {
        const size_t last = std::min(list.find(',', first), list.size());
        const std::string_view item(list.data() + first, last - first);
        int64_t id = 0;
        const auto [end, code] = std::from_chars(item.data(), item.data() + item.size(), id);
        if (code != std::errc{} || end != item.data() + item.size())
            throw Error(ExitCode::bad_input,
                        fmt::format("{}: item {} is \"{}\"; expected token ids separated by "
                                    "commas, as in 1,2,3",
                                    where, prompt.size(), item));
        check_token_id(id, model.vocab_size, fmt::format("{}, item {}", where, prompt.size()));
        prompt.push_back(static_cast<int32_t>(id));
        first = last + 1;
    }
    check_prompt(prompt, context, where);
    return prompt;
}

namespace {

// The text of a line without its escapes.
std::string unescape(std::string_view line, const std::string& where) {
    std::string text;
    for (size_t i = 0; i < line.size(); ++i) {
        if (line[i] != '\\') {
            text.push_back(line[i]);
            continue;
        }
        const char escape = ++i < line.size() ? line[i] : ' ';
        constexpr std::string_view kEscapes = "ntr\\", kMeant = "\n\t\r\\";
        const size_t at = kEscapes.find(escape);
        if (at == std::string_view::npos)
            throw Error(ExitCode::bad_input,
                        fmt::format("{}: character {} is a backslash that means nothing; write "
                                    "\\n for a newline, \\t, \\r, and \\\\ for a backslash",
                                    where, i));
        text.push_back(kMeant[at]);
    }
    return text;
}

}  // namespace

std::vector<PromptText> split_prompts(const std::string& bytes, const std::string& path) {
    std::vector<PromptText> prompts;
    for (size_t first = 0; first < bytes.size();) {
        const size_t last = std::min(bytes.find('\n', first), bytes.size());
        const std::string where = fmt::format("{}:{}", path, prompts.size() + 1);
        std::string_view line(bytes.data() + first, last - first);
        // Of a line's end as Windows writes it; a prompt's own is written \r.
        if (!line.empty() && line.back() == '\r') line.remove_suffix(1);
        if (line.empty())
            throw Error(ExitCode::bad_input,
                        where + ": the line is empty; each line is a prompt (\\n is a newline)");
        prompts.push_back({unescape(line, where), where});
        first = last + 1;
    }
    if (prompts.empty())
        throw Error(ExitCode::bad_input, path + " is empty; give one prompt per line");
    return prompts;
}

std::string read_prompt_file(const std::string& path, const std::string& option) {
    const auto fail = [&](ExitCode code) {
        throw Error(code,
                    fmt::format("{}: cannot read {}: {}", option, path, std::strerror(errno)));
    };
    const auto close = [](FILE* file) {
        if (file != stdin) std::fclose(file);
    };
    const std::unique_ptr<FILE, decltype(close)> file(
        path == "-" ? stdin : std::fopen(path.c_str(), "rb"), close);
    if (file == nullptr)
        fail(errno == ENOENT || errno == ENOTDIR ? ExitCode::bad_input : ExitCode::io);
    std::string bytes;
    char part[4096];
    while (const size_t size = std::fread(part, 1, sizeof part, file.get()))
        bytes.append(part, size);
    // A folder can be opened, but not read.
    if (std::ferror(file.get()) != 0) fail(errno == EISDIR ? ExitCode::bad_input : ExitCode::io);
    return bytes;
}

}  // namespace plumb
