#include "ops/devices.h"

#include "ops/cpu/select.h"

namespace signround {

std::unique_ptr<Backend> make_backend(const std::string& device, Precision precision) {
  if (device == "auto" || device == "cpu") return make_cpu_backend(precision);
  const bool cuda = device == "cuda" || (device.rfind("cuda:", 0) == 0 && device.size() > 5 &&
                                         device.find_first_not_of("0123456789", 5) == std::string::npos);
  check(cuda, ErrorKind::usage, "--device ", device, " is none of auto, cpu, cuda, cuda:N");
  fail(ErrorKind::bad_input, "this build has no CUDA backend: use --device cpu");
}

}  // namespace signround
