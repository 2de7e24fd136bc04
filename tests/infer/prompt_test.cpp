// Prompts that a model can take, and the errors of those it cannot.
#include "infer/prompt.h"

#include <gtest/gtest.h>

#include "runtime/base/error.h"

namespace plumb {
namespace {

ModelSpec model_of(int64_t vocab_size) {
    ModelSpec model;
    model.vocab_size = vocab_size;
    return model;
}

template <typename Body>
std::string error_of(Body body) {
    try {
        body();
    } catch (const Error& error) {
        EXPECT_EQ(error.code(), ExitCode::bad_input);
        return error.what();
    }
    ADD_FAILURE() << "no error";
    return "";
}

TEST(Prompt, BytesAreTokens) {
    EXPECT_EQ(text_prompt(std::string("a\0\xFF", 3), model_of(256), 3, "--prompt"),
              (std::vector<int32_t>{'a', 0, 255}));
}

TEST(Prompt, EmptyText) {
    EXPECT_EQ(error_of([] { text_prompt("", model_of(256), 3, "--prompt"); }),
              "--prompt: the prompt is empty; give at least one token");
    EXPECT_EQ(error_of([] { listed_prompt("", model_of(256), 3, "--prompt-tokens"); }),
              "--prompt-tokens: the prompt is empty; give at least one token");
}

TEST(Prompt, LongerThanTheContext) {
    EXPECT_EQ(text_prompt("abc", model_of(256), 3, "--prompt").size(), 3u);
    EXPECT_EQ(error_of([] { text_prompt("abcd", model_of(256), 3, "--prompt"); }),
              "--prompt: the prompt has 4 tokens, but the context is 3 tokens "
              "(generate.context)");
}

TEST(Prompt, ByteAboveTheVocabulary) {
    EXPECT_EQ(text_prompt("\x7F", model_of(128), 3, "--prompt").size(), 1u);
    EXPECT_EQ(error_of([] { text_prompt("ab\x80", model_of(128), 3, "--prompt"); }),
              "--prompt, byte 2: token id 128 is outside the vocabulary; it must be from 0 to 127");
}

TEST(Prompt, TextNeedsAByteModel) {
    EXPECT_EQ(error_of([] { text_prompt("a", model_of(257), 3, "--prompt"); }),
              "--prompt: text is taken as bytes by models of at most 256 tokens, but this one has "
              "257 and its checkpoint no tokenizer; give token ids, as in --prompt-tokens 1,2,3");
}

TEST(Prompt, ListedIds) {
    EXPECT_EQ(listed_prompt("0,50256,7", model_of(50257), 3, "--prompt-tokens"),
              (std::vector<int32_t>{0, 50256, 7}));
    EXPECT_EQ(error_of([] { listed_prompt("1,50257", model_of(50257), 3, "--prompt-tokens"); }),
              "--prompt-tokens, item 1: token id 50257 is outside the vocabulary; it must be from "
              "0 to 50256");
    EXPECT_NE(error_of([] {
                  listed_prompt("-1", model_of(9), 3, "--prompt-tokens");
              }).find("token id -1 is outside"),
              std::string::npos);
    EXPECT_NE(error_of([] {
                  listed_prompt("1,2,3,4", model_of(9), 3, "--prompt-tokens");
              }).find("has 4 tokens, but the context is 3"),
              std::string::npos);
}

TEST(Prompt, MalformedLists) {
    for (const std::string list :
         {",", "1,", ",1", "1,,2", "1, 2", "1;2", "0x1", "1.5", "one", "99999999999999999999"})
        EXPECT_NE(error_of([&] {
                      listed_prompt(list, model_of(9), 8, "--prompt-tokens");
                  }).find("expected token ids separated by commas, as in 1,2,3"),
                  std::string::npos)
            << list;
}

TEST(Prompt, UnreadableFile) {
    for (const std::string path : {"/nonexistent/prompt.txt", "/"}) {
        try {
            read_prompt_file(path);
            ADD_FAILURE() << path;
        } catch (const Error& error) {
            EXPECT_EQ(error.code(), ExitCode::bad_input);
            EXPECT_NE(std::string(error.what()).find("cannot read " + path), std::string::npos);
        }
    }
}

}  // namespace
}  // namespace plumb
