#include "text/builtin.h"

extern "C" {
extern const char signround_calibration_begin[];
extern const char signround_calibration_end[];
}

namespace signround {

std::string_view builtin_calibration_text() { return {signround_calibration_begin, signround_calibration_end}; }

}  // namespace signround
