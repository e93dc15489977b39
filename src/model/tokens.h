// Text and ids into tokens of a model.
#pragma once
#include <string>
#include <vector>

#include "model/config.h"
#include "text/calibration.h"

namespace signround {

// tokenizer.json and tokenizer_config.json of a model directory.
Tokenizer read_tokenizer(const std::string& directory);

// The tokens of a text file, or of a file of white-space-separated ids if `ids` is not empty. No BOS. Ids beyond the vocabulary
// are Error{bad_input}.
std::vector<i32> read_tokens(const std::string& directory, const Config& config, const std::string& text, const std::string& ids);

// Calibration samples from a text ("builtin" is the one inside the program, *.jsonl has a document a line) or a file of ids.
std::vector<std::vector<i32>> read_calibration(const std::string& directory, const Config& config, const std::string& dataset,
                                               const std::string& ids, const WindowOptions& windows);

// Throws Error{bad_input} naming the first id outside of [0, vocab) and its position.
void check_ids(const std::vector<i32>& ids, i64 vocab);

}  // namespace signround
