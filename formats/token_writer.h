// Makes token files from text: every byte of the text is a token (width 1, ids 0..255). The last
// part of the text becomes the validation file. Files appear whole or not at all: all are written
// under temporary names and flushed to disk, then renamed, sidecars last, so that a .bin with its
// sidecar is complete at any moment.
// Path: cold.
#pragma once

#include <string>
#include <vector>

#include "formats/tokens.h"

namespace plumb {

struct WrittenTokens {
    TokenFileInfo train;
    TokenFileInfo valid;
};

// Concatenates the bytes of `texts` in the given order into `directory`/train.bin and valid.bin
// with their sidecars; valid.bin gets the last max(1, floor(total * valid_fraction)) tokens.
// Creates the directory. Throws Error: bad_input for a text that is missing, empty, not a regular
// file or one of the files written here; for fewer than 2 tokens in all; for a fraction outside
// (0, 1); for a train.bin or valid.bin there that is not of this program's making (its sidecar
// does not say tokenizer "bytes"): somebody's own tokens. io when reading or writing fails, with
// files of an earlier run intact.
WrittenTokens write_byte_tokens(const std::vector<std::string>& texts, const std::string& directory,
                                double valid_fraction);

}  // namespace plumb
