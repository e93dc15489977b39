#include "export/export.h"

#include <string_view>

#include "base/nearest.h"
#include "export/auto_round.h"
#include "export/fake.h"

namespace signround {

TensorInfo tensor_info(std::string name, DType dtype, std::vector<i64> shape) {
  i64 bytes = bytes_of(dtype);
  for (i64 d : shape) bytes *= d;
  return {std::move(name), dtype, std::move(shape), 0, static_cast<u64>(bytes)};
}

std::unique_ptr<Exporter> make_exporter(const std::string& format) {
  struct Format {
    std::string_view name;
    std::unique_ptr<Exporter> (*make)();
  };
  constexpr Format kFormats[] = {{"auto_round", make_auto_round_exporter}, {"fake", make_fake_exporter}};

  std::vector<std::string_view> names;
  for (const Format& f : kFormats) {
    if (f.name == format) return f.make();
    names.push_back(f.name);
  }
  fail(ErrorKind::usage, "format \"", format, "\" is not known; the nearest is ", nearest(format, names));
}

}  // namespace signround
