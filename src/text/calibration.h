// Calibration samples: equally long windows of token ids, cut from a text or from a file of ids.
#pragma once
#include "text/tokenizer.h"

namespace signround {

enum class DatasetKind { text, jsonl };
DatasetKind dataset_kind(std::string_view path);  // jsonl by its extension, else text

struct WindowOptions {
  i64 count = 128;
  i64 length = 2048;  // tokens, with those that the tokenizer puts around a text
  i64 seed = 42;
};

// The ids of a whole file, without special ones. jsonl: a document a line, {"text": "..."} or a bare string; the documents follow
// one another, so that short ones are not lost (auto-round drops every one shorter than a sample, unless it is told to
// concatenate). Error{bad_input} names the line or the byte.
std::vector<i32> dataset_ids(std::string_view content, DatasetKind kind, const Tokenizer& tokenizer);

// Ids separated by white space. Error{bad_input}: something else, or an id that is not in 0..vocab-1.
std::vector<i32> parse_ids(std::string_view content, i64 vocab);

// Cuts ids into windows that follow one another, drops the remainder, and takes the first `count` of them in the order that
// Python's random.shuffle gives for the seed. Every window has special.before and special.after around it, as if it were a text
// of its own. Error{bad_input} if there are not enough ids: how many there are, how many are needed, what to lower.
std::vector<std::vector<i32>> cut_windows(std::span<const i32> ids, const SpecialIds& special, const WindowOptions& options);

}  // namespace signround
