// What quantize and export share about their outputs: the size of files, and who can load them.
#pragma once
#include "cli/options.h"
#include "export/loaders.h"

namespace signround {

inline constexpr Flag kShardSizeFlag = {
    .name = "--shard-size", .kind = FlagKind::text, .value = "SIZE", .fallback = "5GiB",
    .help = "of a file of tensors at the most, in MB, GB, MiB, GiB or bytes", .example = "--shard-size 2GB"};

u64 shard_bytes_of(const Arguments& args);  // Throws Error{usage} if it is no size

std::string loaders_text(const std::vector<Verdict>& loaders);
Json loaders_json(const std::vector<Verdict>& loaders);

template <class List>
Json list_json(const List& list) {
  Json json = Json::array({});
  for (const auto& element : list) json.push(element);
  return json;
}

}  // namespace signround
