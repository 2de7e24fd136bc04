// From what the user typed to token ids that a model can take. Text is bytes, each a token, because
// checkpoints hold no tokenizer yet: it needs a model of at most 256 tokens; others take ids. Every
// id is checked against the vocabulary and the count against the context, before anything large is
// reserved; each error names the option, what was found and what would be right (exit 2).
// Path: cold.
#pragma once

#include <string>
#include <vector>

#include "runtime/config/model_spec.h"

namespace plumb {

// True when a byte is a token of this model.
bool takes_text(const ModelSpec& model);

// `context` is how many tokens the cache holds; `where` names the option in errors.
std::vector<int32_t> text_prompt(const std::string& bytes, const ModelSpec& model, int64_t context,
                                 const std::string& where);

// From "1,2,3".
std::vector<int32_t> listed_prompt(const std::string& list, const ModelSpec& model, int64_t context,
                                   const std::string& where);

// A prompt as the user gave it, and its place for errors.
struct PromptText {
    std::string text;
    std::string where;
};

// The lines of a file of prompts, one prompt each. In a line \n is a newline, \t a tab, \r a
// carriage return and \\ a backslash; any other backslash is an error, as is an empty line. Lines
// may end in CR LF. Throws Error (bad_input) naming the line; also when there is no line at all.
// `path` stands in errors.
std::vector<PromptText> split_prompts(const std::string& bytes, const std::string& path);

// All bytes of a file, or of standard input for "-"; `option` stands in errors. Throws Error:
// bad_input when there is no such file, io when it cannot be read.
std::string read_prompt_file(const std::string& path, const std::string& option);

}  // namespace plumb
