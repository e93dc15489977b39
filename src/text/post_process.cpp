#include "text/post_process.h"

#include "text/unsupported.h"

namespace signround {
namespace {

// The ids that "post_processor" puts around a text.
class Processor {
 public:
  std::vector<i64> before, after;

  void read(const Json* json) {
    if (!json || json->is_null()) return;
    const std::string& type = json->string("type");
    if (type == "ByteLevel") return;  // moves offsets only
    if (type == "Sequence") {
      for (const Json& step : json->array("processors")) read(&step);
      return;
    }
    if (!before.empty() || !after.empty()) unsupported("more than one post_processor that adds tokens");
    if (type == "TemplateProcessing") {
      read_template(*json);
    } else if (type == "BertProcessing" || type == "RobertaProcessing") {
      before.push_back(second(json->array("cls")));
      after.push_back(second(json->array("sep")));
    } else {
      unsupported("post_processor ", quote(type));
    }
  }

 private:
  // "single" is a list of {"SpecialToken": {"id": name}} around one {"Sequence": {"id": "A"}}.
  void read_template(const Json& json);

  static i64 second(const Json::Array& pair) {  // [name, id]
    check(pair.size() == 2, ErrorKind::bad_input, "post_processor: expected a name and an id, found ", pair.size(), " values");
    return pair[1].integer();
  }
};

void Processor::read_template(const Json& json) {
  bool text_seen = false;
  for (const Json& item : json.array("single")) {
    if (const Json* special = item.find("SpecialToken")) {
      const Json& token = json.at("special_tokens").at(special->string("id"));
      for (const Json& id : token.array("ids")) (text_seen ? after : before).push_back(id.integer());
    } else {
      const bool text = !text_seen && item.at("Sequence").string("id") == "A";
      if (!text) unsupported("a post_processor template with a text other than one A");
      text_seen = true;
    }
  }
  if (!text_seen) unsupported("a post_processor template without the text");
}

// As ids of known tokens.
std::vector<i32> known_ids(const std::vector<i64>& ids, const AddedTokens& added, const Vocab& vocab) {
  std::vector<i32> known;
  for (const i64 id : ids) {
    const bool there = vocab.token(id) || (0 <= id && id < added.end() && added.find(static_cast<i32>(id)));
    check(there, ErrorKind::bad_input, "post_processor: no token has the id ", id);
    known.push_back(static_cast<i32>(id));
  }
  return known;
}

// What the config has for a key, if it is not null.
const Json* named(const Json* config, std::string_view key) {
  const Json* found = config ? config->find(key) : nullptr;
  return found && !found->is_null() ? found : nullptr;
}

// A token named by the config: its string, or an object with that string as "content".
std::optional<i32> named_id(const Json* config, std::string_view key, const AddedTokens& added, const Vocab& vocab) {
  const Json* token_named = named(config, key);
  if (!token_named) return std::nullopt;
  const std::string& content = token_named->kind() == Json::Kind::object ? token_named->string("content") : token_named->string();
  if (const AddedToken* token = added.find(content)) return token->id;
  return vocab.find(content);
}

// What the config says about adding a token: nothing, or yes or no.
std::optional<bool> wish(const Json* config, std::string_view key) {
  const Json* value = named(config, key);
  return value ? std::optional(value->boolean()) : std::nullopt;
}

}  // namespace

SpecialIds special_ids(const Json* post_processor, const Json* config, const AddedTokens& added, const Vocab& vocab) {
  SpecialIds ids;
  within("tokenizer.json", [&] {
    Processor processor;
    processor.read(post_processor);
    ids.before = known_ids(processor.before, added, vocab);
    ids.after = known_ids(processor.after, added, vocab);
  });
  within("tokenizer_config.json", [&] {
    ids.bos = named_id(config, "bos_token", added, vocab);
    ids.eos = named_id(config, "eos_token", added, vocab);
    if (const std::optional<bool> add = wish(config, "add_bos_token")) {
      check(!*add || ids.bos || !named(config, "bos_token"), ErrorKind::bad_input,
            "add_bos_token is true, but bos_token names no known token");
      const bool there = ids.bos && !ids.before.empty() && ids.before.front() == *ids.bos;
      if (*add && ids.bos && !there) ids.before.insert(ids.before.begin(), *ids.bos);
      if (!*add && there) ids.before.erase(ids.before.begin());
    }
    if (const std::optional<bool> add = wish(config, "add_eos_token")) {
      check(!*add || ids.eos || !named(config, "eos_token"), ErrorKind::bad_input,
            "add_eos_token is true, but eos_token names no known token");
      const bool there = ids.eos && !ids.after.empty() && ids.after.back() == *ids.eos;
      if (*add && ids.eos && !there) ids.after.push_back(*ids.eos);
      if (!*add && there) ids.after.pop_back();
    }
  });
  return ids;
}

}  // namespace signround
