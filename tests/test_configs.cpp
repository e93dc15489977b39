// The config.json of well-known models, as published and as transformers 5 saves it, read as transformers reads it
// (tests/peer/make_configs.py).
#include <doctest/doctest.h>

#include <map>

#include "model/family.h"
#include "model/rope.h"
#include "ops/cpu/select.h"
#include "scratch.h"
#include "testing.h"

using namespace signround;

namespace {

// Embedding, first block and head: shapes by name, as in the checkpoint.
void check_weights(const Config& c, const Json& wanted) {
  const Family& family = family_of(c);
  std::map<std::string, std::vector<i64>> shapes;
  for (const Program& p : {family.embedding(c), family.block(c, 0), family.head(c)})
    for (const WeightRef& w : p.weights) {
      if (c.experts.count > 0 && (w.name.starts_with("mlp.") || w.name.starts_with("block_sparse_moe."))) continue;
      std::vector<i64> shape = {w.rows};
      if (w.cols > 0) shape.push_back(w.cols);
      if (w.transposed) std::swap(shape[0], shape[1]);
      shapes[p.prefix + w.name] = shape;
    }
  CHECK(shapes.size() == wanted.object().size());
  for (const JsonMember& member : wanted.object()) {
    CAPTURE(member.key);
    std::vector<i64> shape;
    for (const Json& size : member.value.array()) shape.push_back(size.integer());
    REQUIRE(shapes.contains(member.key));
    CHECK(shapes[member.key] == shape);
  }
}

void check_frequencies(const std::vector<double>& got, const Json& wanted) {
  REQUIRE(got.size() == wanted.array().size());
  for (size_t i = 0; i < got.size(); ++i) CHECK(got[i] == doctest::Approx(wanted.array()[i].number()).epsilon(2e-6));
}

// Angles that do not know of long sequences.
std::vector<float> plain_angles(std::vector<double> inv_freq, double scale, i64 tokens) {
  RopeTable table;
  table.inv_freq = std::move(inv_freq);
  table.scale = scale;
  return rope_angles(table, tokens);
}

void check_rope(const RopeTable& table, const Json& wanted) {
  CHECK(table.scale == doctest::Approx(wanted.number("scale")).epsilon(1e-8));
  check_frequencies(table.inv_freq, wanted.at("inv_freq"));
  CHECK((table.long_from > 0) == (wanted.find("long_at") != nullptr));
  if (table.long_from == 0) return;
  const i64 at = wanted.integer("long_at");
  CHECK(rope_angles(table, table.long_from) == plain_angles(table.inv_freq, table.scale, table.long_from));
  std::vector<double> longer;
  for (const Json& f : wanted.array("long_inv_freq")) longer.push_back(f.number());
  CHECK(distance(rope_angles(table, at), plain_angles(longer, table.scale, at)) < 1e-3);
  CHECK(distance(rope_angles(table, at), plain_angles(table.inv_freq, table.scale, at)) > 1e-2);
}

void check_activation(Activation activation, double wanted) {
  const std::unique_ptr<Backend> backend = make_cpu_backend(Precision::f32);
  std::vector<float> x = {1.3f}, y = {0};
  backend->act(tensor(y), tensor(x), activation);
  CHECK(static_cast<double>(y[0]) == doctest::Approx(wanted).epsilon(1e-6));
}

void check_layers(const Config& c, const Json& wanted) {
  const Json::Array& windows = wanted.array("window");
  CHECK(static_cast<i64>(windows.size()) == c.layers);
  for (i64 i = 0; i < c.layers; ++i) {
    CAPTURE(i);
    CHECK(c.layer_config(i).window == windows[static_cast<size_t>(i)].integer());
    const Program block = family_of(c).block(c, i);
    for (const Step& step : block.steps)
      if (step.op == Op::attention)
        CHECK(static_cast<double>(step.args.attention.scale) == doctest::Approx(wanted.number("scale")).epsilon(1e-6));
  }
}

}  // namespace

TEST_CASE("configs: the type tells where no class with a head is named") {
  const auto architecture = [](Json architectures) {
    Json json = Json::object({{"model_type", "gpt2"}});
    if (!architectures.is_null()) json.set("architectures", std::move(architectures));
    return read_config(json).architecture;
  };
  CHECK(architecture(nullptr) == "GPT2LMHeadModel");
  CHECK(architecture(Json::array({})) == "GPT2LMHeadModel");
  CHECK(architecture(Json::array({"GPT2Model"})) == "GPT2LMHeadModel");
  CHECK(contains(error_of([&] { architecture(Json::array({"GPT2ForSequenceClassification"})); }), "is not supported"));
  CHECK(contains(error_of([&] { read_config(Json::object({{"model_type", "other"}})); }), "architectures"));
}

TEST_CASE("configs: those of well-known models are read as transformers reads them") {
  const Json all = parse_json(read_file("tests/data/configs.json", 1 << 22));
  CHECK(all.array().size() > 60);
  for (const Json& model : all.array()) {
    const std::string name = model.string("name");
    for (size_t spelling = 0; spelling < 2; ++spelling) {
      CAPTURE(name);
      CAPTURE(spelling);
      const Config c = read_config(model.array("configs")[spelling]);
      const Json& wanted = model.at("expected");
      check_weights(c, wanted.at("weights"));
      CHECK(static_cast<double>(c.norm_eps) == doctest::Approx(wanted.number("eps")).epsilon(1e-6));
      CHECK(c.tied_head == wanted.boolean("tied"));
      check_activation(c.activation, wanted.number("act"));
      check_layers(c, wanted);
      const Json& experts = wanted.at("experts");
      const std::vector<i64> counts = {c.experts.count, c.experts.active, c.experts.ffn, c.experts.shared_ffn};
      for (size_t i = 0; i < counts.size(); ++i) CHECK(counts[i] == (experts.is_null() ? 0 : experts.array()[i].integer()));
      const Json::Array& ropes = wanted.array("rope");
      if (!ropes.empty()) check_rope(c.rope, ropes[0]);
      CHECK(c.local_rope.inv_freq.empty() == (ropes.size() < 2));
      if (ropes.size() > 1) check_rope(c.local_rope, ropes[1]);
    }
  }
}
