#include "text/post_process.h"

#include "text/unsupported.h"

namespace signround {
namespace {

i32 checked_id(i64 id) {
  check(0 <= id && id <= Vocab::kMaxId, ErrorKind::bad_input, "post_processor: id ", id, " is not in 0..", Vocab::kMaxId);
  return static_cast<i32>(id);
}

// "single" is a list of {"SpecialToken": {"id": name}} around one {"Sequence": {"id": "A"}}.
void read_template(const Json& json, SpecialIds& ids) {
  bool text_seen = false;
  for (const Json& item : json.array("single")) {
    if (const Json* special = item.find("SpecialToken")) {
      const Json& token = json.at("special_tokens").at(special->string("id"));
      for (const Json& id : token.array("ids")) (text_seen ? ids.after : ids.before).push_back(checked_id(id.integer()));
    } else {
      const bool text = !text_seen && item.at("Sequence").string("id") == "A";
      if (!text) unsupported("a post_processor template with a text other than one A");
      text_seen = true;
    }
  }
  if (!text_seen) unsupported("a post_processor template without the text");
}

void read_processor(const Json* json, SpecialIds& ids) {
  if (!json || json->is_null()) return;
  const std::string& type = json->string("type");
  if (type == "ByteLevel") return;  // moves offsets only
  if (type == "Sequence") {
    for (const Json& step : json->array("processors")) read_processor(&step, ids);
    return;
  }
  if (!ids.before.empty() || !ids.after.empty()) unsupported("more than one post_processor that adds tokens");
  if (type == "TemplateProcessing") {
    read_template(*json, ids);
  } else if (type == "BertProcessing" || type == "RobertaProcessing") {
    const auto id_in = [&](std::string_view key) {  // [name, id]
      const Json::Array& pair = json->array(key);
      check(pair.size() == 2, ErrorKind::bad_input, "post_processor: ", key, " is not a pair of name and id");
      return checked_id(pair[1].integer());
    };
    ids.before.push_back(id_in("cls"));
    ids.after.push_back(id_in("sep"));
  } else {
    unsupported("post_processor ", quote(type));
  }
}

// A token named by the config: its string, or an object with that string as "content".
std::optional<i32> named_id(const Json* config, std::string_view key, const AddedTokens& added, const Vocab& vocab) {
  const Json* named = config ? config->find(key) : nullptr;
  if (!named || named->is_null()) return std::nullopt;
  const std::string& content = named->kind() == Json::Kind::object ? named->string("content") : named->string();
  if (const AddedToken* token = added.find(content)) return token->id;
  return vocab.find(content);
}

// What the config says about adding a token: nothing, or yes or no.
std::optional<bool> wish(const Json* config, std::string_view key) {
  const Json* value = config ? config->find(key) : nullptr;
  if (!value || value->is_null()) return std::nullopt;
  return value->boolean();
}

}  // namespace

SpecialIds special_ids(const Json* post_processor, const Json* config, const AddedTokens& added, const Vocab& vocab) {
  SpecialIds ids;
  within("tokenizer.json", [&] { read_processor(post_processor, ids); });
  within("tokenizer_config.json", [&] {
    ids.bos = named_id(config, "bos_token", added, vocab);
    ids.eos = named_id(config, "eos_token", added, vocab);
    if (const std::optional<bool> add = wish(config, "add_bos_token")) {
      check(!*add || ids.bos, ErrorKind::bad_input, "add_bos_token is true, but bos_token names no known token");
      const bool there = ids.bos && !ids.before.empty() && ids.before.front() == *ids.bos;
      if (*add && !there) ids.before.insert(ids.before.begin(), *ids.bos);
      if (!*add && there) ids.before.erase(ids.before.begin());
    }
    if (const std::optional<bool> add = wish(config, "add_eos_token")) {
      check(!*add || ids.eos, ErrorKind::bad_input, "add_eos_token is true, but eos_token names no known token");
      const bool there = ids.eos && !ids.after.empty() && ids.after.back() == *ids.eos;
      if (*add && !there) ids.after.push_back(*ids.eos);
      if (!*add && there) ids.after.pop_back();
    }
  });
  return ids;
}

}  // namespace signround
