#include "cli/outputs.h"

#include <charconv>

namespace signround {

u64 shard_bytes_of(const Arguments& args) {
  struct Unit {
    std::string_view name;
    u64 bytes;
  };
  constexpr Unit kUnits[] = {{"", 1}, {"MB", 1'000'000}, {"GB", 1'000'000'000}, {"MiB", u64{1} << 20}, {"GiB", u64{1} << 30}};
  const std::string text = args.text("--shard-size");
  u64 number = 0;
  const std::from_chars_result end = std::from_chars(text.data(), text.data() + text.size(), number);
  const std::string_view unit(end.ptr, static_cast<std::size_t>(text.data() + text.size() - end.ptr));
  for (const Unit& u : kUnits)
    if (end.ec == std::errc() && unit == u.name && number > 0 && number <= (u64{1} << 50) / u.bytes) return number * u.bytes;
  fail(ErrorKind::usage, "--shard-size ", text, ": expected a size, as in ", kShardSizeFlag.example);
}

std::string loaders_text(const std::vector<Verdict>& loaders) {
  std::string text;
  for (const Verdict& v : loaders)
    text += cat("  ", v.engine, std::string(13 - std::min<std::size_t>(12, v.engine.size()), ' '), v.loads ? "yes, " : "no: ",
                v.rule, "\n");
  return text;
}

Json loaders_json(const std::vector<Verdict>& loaders) {
  Json json = Json::object({});
  for (const Verdict& v : loaders) json.set(v.engine, Json::object({{"loads", v.loads}, {"rule", v.rule}}));
  return json;
}

}  // namespace signround
