// What is quantized, and how: names such as W4A16G64, and the rules that leave a linear layer at 16 bits.
#pragma once
#include <optional>
#include <span>
#include <string>

#include "ops/ops.h"

namespace signround {

// "W4A16" (group 128), "W2A16G64", "W8A16G-1" (a whole row), in either case. Throws Error{usage} with the nearest name.
QuantSpec parse_scheme(const std::string& name);

// The scheme, with what is given beside it in its place. Throws Error{usage} for bits or a group size that no scheme has.
QuantSpec merge_scheme(const std::string& name, std::optional<i64> bits, std::optional<i64> group, std::optional<bool> symmetric);

// Throws an error of this kind unless there is such a grid: bits 2, 3, 4 or 8, or, where `plain` allows it, 16; groups of 32, 64,
// 128 or -1. The message calls the two as the caller does: "--bits", "--group-size".
void check_grid(const QuantSpec& spec, ErrorKind kind, const char* bits, const char* group, bool plain = false);

// "W4G128 sym", "W3 per row asym".
std::string text_of(const QuantSpec& spec);

// Why the linear layer `name` [rows, cols] stays as it is; empty if it is quantized. An entry of `ignored` is a layer's name or a
// part of it that does not break a number: "layers.1" leaves layers.10 alone.
std::string reason_to_skip(const std::string& name, i64 rows, i64 cols, std::span<const std::string> ignored);

// Whether `part` is the name or a part of it that does not break a number.
bool has_part(const std::string& name, const std::string& part);

// Of names and their last parts the nearest: "q_prj" means the last part of "model.layers.0.self_attn.q_proj".
std::string nearest_part(const std::string& typed, std::span<const std::string> names);

// Throws Error{usage} if an entry of `ignored` matches none of `names` (all linear layers, lm_head too), with the nearest name.
void check_ignored(std::span<const std::string> ignored, std::span<const std::string> names);

}  // namespace signround
