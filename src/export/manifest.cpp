#include "export/manifest.h"

#include <algorithm>
#include <span>

#include "io/sha256.h"

namespace signround {
namespace {

constexpr i64 kVersion = 2;

std::string text_of(const Json& json) { return to_text(json, 1) + "\n"; }

void put_spec(Json& json, const QuantSpec& spec) {
  json.set("bits", spec.bits);
  json.set("group_size", group_size(spec));
  json.set("sym", spec.symmetric);
  if (spec.two_levels()) json.set("scale_bits", spec.scale_bits);
}

QuantSpec get_spec(const Json& json) {
  const QuantSpec spec{static_cast<int>(json.integer("bits")), json.integer("group_size"), json.boolean("sym"),
                       static_cast<int>(json.integer("scale_bits", 0))};
  check(spec.bits >= 2 && spec.bits <= 8 && (spec.group == -1 || spec.group > 0), ErrorKind::bad_input, "bits ", spec.bits,
        " in groups of ", spec.group, " cannot be");
  check(!spec.two_levels() || fits_spec(spec, kSuperBlock), ErrorKind::bad_input, "scales of two levels, with ", spec.scale_bits,
        " bits for groups of ", spec.group, ", cannot be");
  return spec;
}

Json scheme_json(const ExportScheme& s) {
  Json json = Json::object({}), skipped = Json::array({}), exceptions = Json::object({});
  put_spec(json, s.spec);
  for (const std::string& name : s.skipped) skipped.push(name);
  for (const auto& [name, spec] : s.exceptions) put_spec(exceptions.set(name, Json::object({})), spec);
  json.set("skipped", std::move(skipped));
  json.set("exceptions", std::move(exceptions));
  json.set("block_prefix", s.block_prefix);
  if (s.transposed) json.set("transposed", true);
  json.set("iters", s.iters);
  json.set("nsamples", s.nsamples);
  json.set("seqlen", s.seqlen);
  json.set("batch_size", s.batch_size);
  json.set("gradient_accumulate_steps", s.accumulate);
  if (s.lr) json.set("lr", *s.lr);
  if (s.minmax_lr) json.set("minmax_lr", *s.minmax_lr);
  return json;
}

ExportScheme scheme_of(const Json& json) {
  ExportScheme s;
  s.spec = get_spec(json);
  for (const Json& name : json.array("skipped")) s.skipped.push_back(name.string());
  for (const JsonMember& member : json.object("exceptions")) s.exceptions.emplace_back(member.key, get_spec(member.value));
  s.block_prefix = json.string("block_prefix");
  s.transposed = json.boolean("transposed", false);
  s.iters = json.integer("iters");
  s.nsamples = json.integer("nsamples");
  s.seqlen = json.integer("seqlen");
  s.batch_size = json.integer("batch_size");
  s.accumulate = json.integer("gradient_accumulate_steps");
  if (json.find("lr")) s.lr = json.number("lr");
  if (json.find("minmax_lr")) s.minmax_lr = json.number("minmax_lr");
  return s;
}

std::optional<Perplexities> perplexity_of(const Json& json) {
  if (json.is_null()) return std::nullopt;
  return Perplexities{json.string("text"), json.integer("tokens"), json.number("before"), json.number("after")};
}

Json map_json(const std::map<std::string, std::string>& map) {
  Json json = Json::object({});
  for (const auto& [key, value] : map) json.set(key, value);
  return json;
}

std::map<std::string, std::string> map_of(const Json& json) {
  std::map<std::string, std::string> map;
  for (const JsonMember& member : json.object()) map[member.key] = member.value.string();
  return map;
}

Json without_digest(const Json& json) {
  Json rest = Json::object({});
  for (const JsonMember& member : json.object())
    if (member.key != "digest") rest.set(member.key, member.value);
  return rest;
}

Manifest::Head head_of(const Json& json) {
  return {json.at("head_bytes").unsigned_integer(), json.at("bytes").unsigned_integer(), json.string("head")};
}

}  // namespace

Manifest::Head Manifest::Head::of(const Path& path, u64 bytes) {
  const File file = File::open(path);
  std::string head(std::min(bytes, file.size()), 0);
  file.read(0, std::as_writable_bytes(std::span(head)));
  return {bytes, file.size(), sha256_text(head)};
}

Json to_json(const std::optional<Perplexities>& p) {
  return p ? Json::object({{"text", p->text}, {"tokens", p->tokens}, {"before", p->before}, {"after", p->after}}) : Json();
}

std::string Manifest::text() const {
  Json list = Json::object({}), weights = Json::object({});
  for (const auto& [name, layer] : layers) {
    Json& json = list.set(name, Json::object({{"rows", layer.rows}, {"cols", layer.cols}}));
    put_spec(json, layer.spec);
    json.set("weight_type", name_of(layer.weight_type));
    json.set("grid", layer.grid);
  }
  for (const auto& [name, head] : heads)
    weights.set(name, Json::object({{"bytes", head.file_bytes}, {"head_bytes", head.bytes}, {"head", head.digest}}));
  Json json = Json::object({{"manifest", kVersion},
                            {"format", format},
                            {"command", provenance.command},
                            {"calibration", provenance.calibration},
                            {"seed", provenance.seed},
                            {"perplexity", to_json(provenance.perplexity)},
                            {"scheme", scheme_json(scheme)},
                            {"config", config},
                            {"layers", std::move(list)},
                            {"tensors", map_json(tensors)},
                            {"weights", std::move(weights)},
                            {"files", map_json(files)}});
  json.set("digest", sha256_text(text_of(json)));
  return text_of(json);
}

Manifest Manifest::read(const Path& directory) {
  const Path path = directory / kManifestName;
  check(path_exists(path), ErrorKind::bad_input, path.string(), ": is missing; only what this program wrote has it");
  const Json json = read_json(path);
  return within(path.string(), [&] {
    check(json.integer("manifest") == kVersion, ErrorKind::bad_input, "manifest ", json.integer("manifest"),
          " is of another version of this program; supported: ", kVersion);
    check(sha256_text(text_of(without_digest(json))) == json.string("digest"), ErrorKind::verification, "was changed");
    Manifest m;
    m.format = json.string("format");
    m.provenance = {json.string("command"), json.string("calibration"), json.integer("seed"),
                    perplexity_of(json.at("perplexity"))};
    m.scheme = scheme_of(json.at("scheme"));
    m.config = json.at("config");
    for (const JsonMember& member : json.object("layers"))
      within(cat("layer ", quote(member.key)), [&] {
        const Json& layer = member.value;
        const std::optional<DType> type = dtype_named(layer.string("weight_type"));
        check(type == DType::f32 || type == DType::f16 || type == DType::bf16, ErrorKind::bad_input, "weight_type ",
              quote(layer.string("weight_type")), " cannot be");
        m.layers[member.key] = {layer.integer("rows"), layer.integer("cols"), get_spec(layer), *type, layer.string("grid")};
        check(m.layers[member.key].rows > 0 && m.layers[member.key].cols > 0, ErrorKind::bad_input, "rows and cols cannot be");
      });
    m.tensors = map_of(json.at("tensors"));
    for (const JsonMember& member : json.object("weights"))
      within(cat("weights ", quote(member.key)), [&] { m.heads[member.key] = head_of(member.value); });
    m.files = map_of(json.at("files"));
    return m;
  });
}

std::string grid_digest(const QuantizedLinear& layer) {
  std::vector<std::byte> bytes;
  const auto add = [&](const auto& values) {
    const std::span<const std::byte> more = std::as_bytes(std::span(values));
    bytes.insert(bytes.end(), more.begin(), more.end());
  };
  add(layer.codes);
  add(layer.zero);
  add(layer.scale);
  add(layer.factor);
  add(layer.offset);
  return digest_of(bytes);
}

}  // namespace signround
