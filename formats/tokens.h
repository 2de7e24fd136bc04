// Token files: token ids end to end, little-endian uint8, uint16 or uint32, without a header (the
// layout of llm.c, nanoGPT and Megatron's .bin). What the bytes mean stands in a sidecar
// `<file>.json` beside them: {"width": bytes per token, "count": tokens, "largest": largest id,
// "tokenizer": name}. {"width": 2} suffices: the count follows from the size, and the largest id is
// found by one pass in any case, since a wrong one would end a training in its midst. What is
// stated is compared. A file without sidecar is read with a width stated by the caller. The file
// must not change while it is mapped.
// Path: hot.
#pragma once

#include <string>

#include "runtime/base/types.h"

namespace plumb {

struct TokenFileInfo {
    int32_t width = 0;     // bytes per token: 1, 2 or 4
    int64_t count = -1;    // -1 in a sidecar's: not stated
    int64_t largest = -1;  // largest token id; -1 in a sidecar's: not stated
    std::string tokenizer;
};

// A token file mapped read-only. All errors are found at open; reading allocates nothing.
class TokenFile {
  public:
    // `width` 0: the sidecar says it. Reads all of the file once. Throws Error: missing,
    // unreadable, empty or not a regular file; no width known; width or size other than the
    // sidecar's; an id above the sidecar's largest or 2^31 - 1.
    explicit TokenFile(const std::string& path, int32_t width = 0);
    ~TokenFile();
    TokenFile(const TokenFile&) = delete;
    TokenFile& operator=(const TokenFile&) = delete;

    const std::string& path() const { return path_; }
    const TokenFileInfo& info() const { return info_; }
    int64_t count() const { return info_.count; }

    // Throws Error unless every id is below vocab_size.
    void check_vocabulary(int64_t vocab_size) const;

    // Token i, 0 <= i < count. An id above info().largest (the file was changed) aborts: the model
    // would read or write past its embedding.
    int32_t token(int64_t i) const noexcept;
    // Tokens first .. first + count - 1.
    void read(int64_t first, int64_t count, int32_t* tokens) const noexcept;
    // Asks the kernel to read these tokens ahead, without waiting for them.
    void will_need(int64_t first, int64_t count) const noexcept;

  private:
    void map();
    void check_size(int32_t width);
    void find_largest();

    std::string path_;
    TokenFileInfo info_;
    const unsigned char* data_ = nullptr;
    int64_t size_bytes_ = 0;
};

// Name of the sidecar of a token file.
std::string token_sidecar_path(const std::string& token_path);
// Text of a sidecar, and back; `path` names the file in errors.
std::string format_token_sidecar(const TokenFileInfo& info);
TokenFileInfo parse_token_sidecar(const std::string& text, const std::string& path);
// The sidecar of a token file; false when there is none. Throws Error as parsing does.
bool read_token_sidecar(const std::string& token_path, TokenFileInfo* info);

}  // namespace plumb
