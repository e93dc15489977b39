#include "ops/cpu/select.h"

#include <cstdlib>

namespace signround {

// Defined by isa.cpp, once per instruction set.
namespace baseline { std::unique_ptr<Backend> make_cpu_backend(Precision precision, std::string_view isa); }
#if defined(__x86_64__)
namespace avx2 { std::unique_ptr<Backend> make_cpu_backend(Precision precision, std::string_view isa); }
namespace avx512 { std::unique_ptr<Backend> make_cpu_backend(Precision precision, std::string_view isa); }
namespace avx512bf16 { std::unique_ptr<Backend> make_cpu_backend(Precision precision, std::string_view isa); }
#endif

namespace {

struct Isa {
  std::string_view name;
  std::unique_ptr<Backend> (*make)(Precision, std::string_view);
  bool supported;
};

std::vector<Isa> isas() {
  std::vector<Isa> all = {{"baseline", baseline::make_cpu_backend, true}};
#if defined(__x86_64__)
  const bool has_avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  const bool has_avx512 = has_avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                          __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
  all.push_back({"avx2", avx2::make_cpu_backend, has_avx2});
  all.push_back({"avx512", avx512::make_cpu_backend, has_avx512});
  all.push_back({"avx512bf16", avx512bf16::make_cpu_backend, has_avx512 && __builtin_cpu_supports("avx512bf16")});
#endif
  return all;
}

}  // namespace

std::vector<std::string_view> supported_isas() {
  std::vector<std::string_view> names;
  for (const Isa& isa : isas())
    if (isa.supported) names.push_back(isa.name);
  return names;
}

std::unique_ptr<Backend> make_cpu_backend(Precision precision, std::string_view isa) {
  check(precision != Precision::fp8, ErrorKind::usage, "--precision fp8: processors have no such products; use --precision bf16");
  const char* asked = std::getenv("SIGNROUND_ISA");
  if (isa.empty()) isa = asked && *asked ? std::string_view(asked) : supported_isas().back();
  for (const Isa& i : isas())
    if (i.name == isa && i.supported) return i.make(precision, i.name);
  std::string names;
  for (std::string_view name : supported_isas()) names += cat(names.empty() ? "" : ", ", name);
  fail(ErrorKind::usage, "SIGNROUND_ISA: \"", isa, "\" is not an instruction set of this processor; it has ", names);
}

}  // namespace signround
