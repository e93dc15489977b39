// `signround`, `signround help` and `signround help TOPIC`.
#pragma once
#include <string>
#include <string_view>

#include "cli/options.h"

namespace signround {

inline constexpr std::string_view kVersion = "0.1.0";

std::string overview();  // the verbs, a line each

// A verb's full help, or what concerns several of them: "exit-codes", "schemes", ... Throws Error{usage} that lists the topics.
std::string help_on(std::string_view topic);

// Throws Error{usage} with the nearest verb.
const Command& command_named(std::string_view name);

}  // namespace signround
