#include "ops/devices.h"

#include <charconv>

#include "ops/cpu/select.h"

namespace signround {

std::string why_no_gpu(int device) { return cuda_absence ? cuda_absence(device) : "this build has no CUDA backend"; }

std::unique_ptr<Backend> make_backend(const std::string& device, std::optional<Precision> precision, bool graph) {
  int ordinal = 0;
  if (device != "auto" && device != "cuda" && device != "cpu") {
    const char *digits = device.data() + std::string_view("cuda:").size(), *end = device.data() + device.size();
    const bool named = device.rfind("cuda:", 0) == 0;
    const auto [stop, error] = named ? std::from_chars(digits, end, ordinal) : std::from_chars_result{nullptr, std::errc()};
    check(named && stop == end && error == std::errc() && digits < end && ordinal >= 0, ErrorKind::usage, "--device ", device,
          " is none of auto, cpu, cuda, cuda:N");
  }
  const std::string why = device == "cpu" ? "" : why_no_gpu(ordinal);
  if (device == "cpu" || (device == "auto" && !why.empty())) return make_cpu_backend(precision.value_or(Precision::f32));
  check(why.empty(), ErrorKind::bad_input, "--device ", device, ": ", why, "; use --device cpu");
  return make_cuda_backend(ordinal, precision.value_or(Precision::bf16), graph);
}

}  // namespace signround
