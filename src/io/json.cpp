// The document model: values, lookup, typed access. Reading and writing text is in json_text.cpp.
#include "io/json.h"

#include <charconv>
#include <cmath>
#include <functional>

namespace signround {

namespace {

constexpr std::size_t kLinearSearch = 8;  // objects up to this size need no table

std::size_t slot_of(std::string_view key, std::size_t slots) { return std::hash<std::string_view>{}(key) & (slots - 1); }

template <class T>
std::string shortest_text(T value) {
  char buffer[32];
  const std::to_chars_result end = std::to_chars(buffer, buffer + sizeof buffer, value);
  std::string text(buffer, end.ptr);
  if (text.find_first_of(".e") == std::string::npos) text += ".0";  // stays a floating-point number for readers that care
  return text;
}

}  // namespace

Json::Json(double value) {
  if (std::isfinite(value)) value_ = Number{shortest_text(value)};
}

Json::Json(float value) {
  if (std::isfinite(value)) value_ = Number{shortest_text(value)};
}

Json Json::array(std::initializer_list<Json> elements) {
  Json json;
  json.value_ = Array(elements);
  return json;
}

Json Json::object(std::initializer_list<JsonMember> members) {
  Json json;
  Object& object = json.value_.emplace<Object>();
  for (const JsonMember& member : members) {
    Json* const value = object.add(member.key);
    check(value != nullptr, ErrorKind::bug, "key ", quote(member.key), " is given twice");
    *value = member.value;
  }
  return json;
}

Json::Object::Object(const Object& other) : members(other.members) { rebuild_slots(); }

bool Json::Object::operator==(const Object& other) const { return members == other.members; }

const Json* Json::Object::find(std::string_view key) const {
  if (!slots) {
    for (const JsonMember& member : members)
      if (member.key == key) return &member.value;
    return nullptr;
  }
  for (std::size_t slot = slot_of(key, slots->size());; slot = (slot + 1) & (slots->size() - 1)) {
    const u32 position = (*slots)[slot];
    if (position == 0) return nullptr;
    if (members[position - 1].key == key) return &members[position - 1].value;
  }
}

Json* Json::Object::add(std::string key) {
  if (find(key)) return nullptr;
  members.push_back({std::move(key), Json()});
  if (members.size() > kLinearSearch && (!slots || 2 * members.size() > slots->size())) {
    rebuild_slots();
  } else if (slots) {
    std::size_t slot = slot_of(members.back().key, slots->size());
    while ((*slots)[slot] != 0) slot = (slot + 1) & (slots->size() - 1);
    (*slots)[slot] = static_cast<u32>(members.size());
  }
  return &members.back().value;
}

// At most a quarter full afterwards, so that it is rebuilt after as many additions again.
void Json::Object::rebuild_slots() {
  if (members.size() <= kLinearSearch) return;
  std::size_t count = 4 * kLinearSearch;
  while (count < 4 * members.size()) count *= 2;
  slots = std::make_unique<std::vector<u32>>(count, 0u);
  for (std::size_t i = 0; i < members.size(); ++i) {
    std::size_t slot = slot_of(members[i].key, count);
    while ((*slots)[slot] != 0) slot = (slot + 1) & (count - 1);
    (*slots)[slot] = static_cast<u32>(i + 1);
  }
}

std::string Json::describe() const {
  switch (kind()) {
    case Kind::null: return "null";
    case Kind::boolean: return std::get<bool>(value_) ? "true" : "false";
    case Kind::number: {
      const std::string& text = std::get<Number>(value_).text;
      return text.size() > 40 ? cat("a number of ", text.size(), " characters") : text;
    }
    case Kind::string: return cat("the string ", quote(std::get<std::string>(value_)));
    case Kind::array: return cat("an array of ", std::get<Array>(value_).size());
    case Kind::object: return "an object";
  }
  return "";
}

template <class T>
const T& Json::as(std::string_view wanted) const {
  const T* const value = std::get_if<T>(&value_);
  if (!value) fail(ErrorKind::bad_input, "expected ", wanted, ", found ", describe());
  return *value;
}

template <class T>
T Json::parse_number(std::string_view wanted) const {
  const std::string& text = as<Number>(wanted).text;
  T value{};
  const std::from_chars_result result = std::from_chars(text.data(), text.data() + text.size(), value);
  check(result.ec == std::errc{} && result.ptr == text.data() + text.size(), ErrorKind::bad_input, "expected ", wanted,
        ", found ", describe());
  return value;
}

bool Json::boolean() const { return as<bool>("true or false"); }
i64 Json::integer() const { return parse_number<i64>("an integer of 64 bits"); }
u64 Json::unsigned_integer() const { return parse_number<u64>("an integer from 0 to 2^64-1"); }
double Json::number() const { return parse_number<double>("a number in the range of a double"); }
const std::string& Json::string() const { return as<std::string>("a string"); }
const Json::Array& Json::array() const { return as<Array>("an array"); }
const Json::Members& Json::object() const { return as<Object>("an object").members; }

const Json* Json::find(std::string_view key) const { return as<Object>("an object").find(key); }

const Json& Json::at(std::string_view key) const {
  const Json* const value = find(key);
  if (!value) fail(ErrorKind::bad_input, "key ", quote(key), " is missing");
  return *value;
}

namespace {

template <class F>
decltype(auto) with_key(const Json& json, std::string_view key, F access) {
  const Json& value = json.at(key);
  try {
    return access(value);
  } catch (Error& e) {
    e.message = cat("key ", quote(key), ": ", e.message);
    throw;
  }
}

bool absent(const Json& json, std::string_view key) {
  const Json* const value = json.find(key);
  return !value || value->is_null();
}

}  // namespace

bool Json::boolean(std::string_view key) const {
  return with_key(*this, key, [](const Json& v) { return v.boolean(); });
}
i64 Json::integer(std::string_view key) const {
  return with_key(*this, key, [](const Json& v) { return v.integer(); });
}
double Json::number(std::string_view key) const {
  return with_key(*this, key, [](const Json& v) { return v.number(); });
}
const std::string& Json::string(std::string_view key) const {
  return with_key(*this, key, [](const Json& v) -> const std::string& { return v.string(); });
}
const Json::Array& Json::array(std::string_view key) const {
  return with_key(*this, key, [](const Json& v) -> const Array& { return v.array(); });
}
const Json::Members& Json::object(std::string_view key) const {
  return with_key(*this, key, [](const Json& v) -> const Members& { return v.object(); });
}

bool Json::boolean(std::string_view key, bool fallback) const { return absent(*this, key) ? fallback : boolean(key); }
i64 Json::integer(std::string_view key, i64 fallback) const { return absent(*this, key) ? fallback : integer(key); }
double Json::number(std::string_view key, double fallback) const { return absent(*this, key) ? fallback : number(key); }
std::string Json::string(std::string_view key, std::string_view fallback) const {
  return absent(*this, key) ? std::string(fallback) : string(key);
}

void Json::push(Json element) {
  if (is_null()) value_.emplace<Array>();
  Array* const elements = std::get_if<Array>(&value_);
  check(elements != nullptr, ErrorKind::bug, "an element is added to ", describe());
  elements->push_back(std::move(element));
}

Json& Json::set(std::string_view key, Json value) {
  if (is_null()) value_.emplace<Object>();
  Object* const object = std::get_if<Object>(&value_);
  check(object != nullptr, ErrorKind::bug, "key ", quote(key), " is set in ", describe());
  Json* member = const_cast<Json*>(object->find(key));
  if (!member) member = object->add(std::string(key));
  *member = std::move(value);
  return *member;
}

bool Json::operator==(const Json& other) const { return value_ == other.value_; }

}  // namespace signround
