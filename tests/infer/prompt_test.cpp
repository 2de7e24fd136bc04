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
            read_prompt_file(path, "--prompts");
            ADD_FAILURE() << path;
        } catch (const Error& error) {
            EXPECT_EQ(error.code(), ExitCode::bad_input);
            EXPECT_NE(std::string(error.what()).find("--prompts: cannot read " + path),
                      std::string::npos);
        }
    }
}

TEST(Prompt, LinesAreThePromptsOfAFile) {
    const auto prompts = split_prompts("one\n two\\nlines\t\\t\\r\\\\n\nlast", "file");
    ASSERT_EQ(prompts.size(), 3u);
    EXPECT_EQ(prompts[0].text, "one");
    EXPECT_EQ(prompts[0].where, "file:1");
    EXPECT_EQ(prompts[1].text, " two\nlines\t\t\r\\n");
    EXPECT_EQ(prompts[2].text, "last");
    EXPECT_EQ(prompts[2].where, "file:3");
    EXPECT_EQ(split_prompts("one\n", "file").size(), 1u) << "the last line's end begins no other";
    const auto windows = split_prompts("one\r\ntwo\\r\r\nlast\r", "file");
    ASSERT_EQ(windows.size(), 3u);
    EXPECT_EQ(windows[0].text, "one");
    EXPECT_EQ(windows[1].text, "two\r");
    EXPECT_EQ(windows[2].text, "last");
}

TEST(Prompt, MalformedFilesOfPrompts) {
    const auto fails = [](const std::string& bytes) {
        return error_of([&] { split_prompts(bytes, "file"); });
    };
    EXPECT_EQ(fails(""), "file is empty; give one prompt per line");
    EXPECT_EQ(fails("\n"), "file:1: the line is empty; each line is a prompt (\\n is a newline)");
    EXPECT_EQ(fails("\r\na"), fails("\n"));
    EXPECT_EQ(fails("a\n\nb"),
              "file:2: the line is empty; each line is a prompt (\\n is a newline)");
    const std::string rest =
        " is a backslash that means nothing; write \\n for a newline, \\t, \\r, and \\\\ for a "
        "backslash";
    EXPECT_EQ(fails("a\nb\\x"), "file:2: character 2" + rest);
    EXPECT_EQ(fails("b\\"), "file:1: character 2" + rest);
}

}  // namespace
}  // namespace plumb
