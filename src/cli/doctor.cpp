// `signround doctor`: what this machine and this build have, measured where that says more.
#include <fstream>

#include "base/threads.h"
#include "cli/commands.h"
#include "cli/console.h"
#include "cli/help.h"
#include "cli/progress.h"
#include "ops/cpu/select.h"
#include "ops/devices.h"
#include "pipeline/bench.h"
#include "text/builtin.h"

namespace signround {
namespace {

constexpr Flag kFlags[] = {kDeviceFlag, kThreadsFlag, kJsonFlag};

std::string processor_name() {
  std::ifstream info("/proc/cpuinfo");
  for (std::string line; std::getline(info, line);)
    if (line.starts_with("model name") && line.find(": ") != std::string::npos) return line.substr(line.find(": ") + 2);
  return "unknown";
}

std::string compiler() {
#if defined(__clang__)
  return cat("clang ", __clang_major__, ".", __clang_minor__);
#else
  return cat("g++ ", __GNUC__, ".", __GNUC_MINOR__);
#endif
}

void run(const Arguments& args) {
  use_threads(args);
  const std::unique_ptr<Backend> single = make_backend(args.text("--device"), Precision::f32);
  const std::unique_ptr<Backend> half = make_backend(args.text("--device"), Precision::bf16);
  const double single_rate = matmul_tflops(*single), half_rate = matmul_tflops(*half);
  const Json backends = cuda_absence ? Json::array({"cpu", "cuda"}) : Json::array({"cpu"});
  const std::string no_gpu = why_no_gpu();
  Json isas = Json::array({});
  for (const std::string_view isa : supported_isas()) isas.push(isa);
  if (args.toggle("--json"))
    return put_json(Json::object({{"version", kVersion},
                                  {"compiler", compiler()},
                                  {"backends", backends},
                                  {"device", single->name()},
                                  {"why_no_gpu", no_gpu.empty() ? Json() : Json(no_gpu)},
                                  {"processor", processor_name()},
                                  {"instruction_sets", isas},
                                  {"threads", thread_count()},
                                  {"total_bytes", single->total_bytes()},
                                  {"free_bytes", single->free_bytes()},
                                  {"matmul_tflops_fp32", single_rate},
                                  {"matmul_tflops_bf16", half_rate},
                                  {"calibration_text_bytes", builtin_calibration_text().size()}}));
  const auto line = [](std::string name, const auto&... value) {
    name.resize(14, ' ');
    put(cat("  ", name, value..., "\n"));
  };
  put(cat("signround ", kVersion, "\n"));
  line("build", compiler(), ", backends ", to_text(backends));
  line("device", single->name(), no_gpu.empty() ? "" : " (no GPU: " + no_gpu + ")");
  line("processor", processor_name(), ", kernels for ", to_text(isas), ", threads ", thread_count());
  line("memory", human_bytes(single->total_bytes()), ", free ", human_bytes(single->free_bytes()));
  line("products", "fp32 ", rate_text(single_rate), ", bf16 ", rate_text(half_rate));
  line("calibration", human_bytes(static_cast<i64>(builtin_calibration_text().size())), " of text inside the program");
}

}  // namespace

const Command doctor_command = {
    .name = "doctor",
    .argument = "",
    .summary = "device, memory, speed, and what this build contains",
    .details = "The speed is that of matrix products, measured here and now. The block lines of quantize are shown beside it.",
    .example = "signround doctor",
    .flags = kFlags,
    .run = run,
};

}  // namespace signround
