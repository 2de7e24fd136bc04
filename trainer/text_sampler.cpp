#include "trainer/text_sampler.h"

#include <algorithm>

namespace plumb {

namespace {

constexpr int64_t kPromptTokens = 16;
constexpr double kTemperature = 0.8;
constexpr char kHexDigits[] = "0123456789abcdef";

// Bytes of the well-formed UTF-8 sequence of a printable character at `bytes`, 0 when there is
// none (Unicode 15, table 3-7).
int64_t printable_bytes(const unsigned char* bytes, int64_t count) noexcept {
    const unsigned char first = bytes[0];
    if (first < 0x80) return first >= 0x20 && first != 0x7f ? 1 : 0;
    const int64_t size = first >= 0xc2 && first < 0xe0   ? 2
                         : first >= 0xe0 && first < 0xf0 ? 3
                         : first >= 0xf0 && first < 0xf5 ? 4
                                                         : 0;
    if (size == 0 || size > count) return 0;
    for (int64_t i = 1; i < size; ++i)
        if ((bytes[i] & 0xc0) != 0x80) return 0;
    const unsigned char second = bytes[1];
    const bool bad = (first == 0xc2 && second < 0xa0)       // C1 controls
                     || (first == 0xe0 && second < 0xa0)    // overlong
                     || (first == 0xed && second >= 0xa0)   // surrogates
                     || (first == 0xf0 && second < 0x90)    // overlong
                     || (first == 0xf4 && second >= 0x90);  // above U+10FFFF
    return bad ? 0 : size;
}

}  // namespace

int64_t escape_text(const unsigned char* bytes, int64_t count, char* text) noexcept {
    char* out = text;
    for (int64_t i = 0; i < count;) {
        if (const int64_t size = printable_bytes(bytes + i, count - i); size > 0) {
            out = std::copy_n(bytes + i, size, out);
            i += size;
            continue;
        }
        const unsigned char byte = bytes[i++];
        *out++ = '\\';
        if (byte == '\n' || byte == '\t') {
            *out++ = byte == '\n' ? 'n' : 't';
            continue;
        }
        *out++ = 'x';
        *out++ = kHexDigits[byte >> 4];
        *out++ = kHexDigits[byte & 15];
    }
    return out - text;
}

bool TextSampler::possible(const RunConfig& config, const TokenFile& tokens) {
    return config.run.train.sample_tokens > 0 && config.run.batch.sequence_length > 1 &&
           config.model.vocab_size >= 256 && tokens.info().tokenizer == "bytes";
}

TextSampler::TextSampler(Session& session, const TokenFile& tokens) : generator_(session) {
    const int64_t context = generator_.context();
    prompt_.resize(static_cast<size_t>(std::min({kPromptTokens, context / 2, tokens.count()})));
    const auto prompt_count = static_cast<int64_t>(prompt_.size());
    tokens.read(0, prompt_count, prompt_.data());
    token_count_ = std::min(session.config().run.train.sample_tokens, context - prompt_count);
    bytes_.assign(prompt_.begin(), prompt_.end());
    prompt_text_.resize(4 * bytes_.size());
    prompt_text_.resize(
        static_cast<size_t>(escape_text(bytes_.data(), prompt_count, prompt_text_.data())));
    bytes_.resize(static_cast<size_t>(token_count_));
    text_.resize(4 * bytes_.size());
}

TextSample TextSampler::sample() noexcept {
    int32_t token =
        generator_.start(prompt_.data(), static_cast<int64_t>(prompt_.size()), {kTemperature, 1});
    for (int64_t i = 0; i < token_count_; ++i) {
        if (i > 0) token = generator_.next();
        // An id above the bytes is one that the text never has; it shows as \x1a (substitute).
        bytes_[static_cast<size_t>(i)] = static_cast<unsigned char>(token < 256 ? token : 0x1a);
    }
    const int64_t size = escape_text(bytes_.data(), token_count_, text_.data());
    return {{prompt_text_.data(), prompt_text_.size()}, {text_.data(), static_cast<size_t>(size)}};
}

}  // namespace plumb
