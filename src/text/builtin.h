// The calibration text that travels inside the program: data/calibration.txt, put there by builtin_text.S.
#pragma once
#include <string_view>

namespace signround {

std::string_view builtin_calibration_text();

}  // namespace signround
