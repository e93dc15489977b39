// Any bytes: either an Error{bad_input} of one line, or a document that survives being printed and read again.
#include <cstdlib>

#include "io/json.h"

using namespace signround;

namespace {

void require(bool ok) {
  if (!ok) std::abort();
}

// Every accessor on every value: a wrong type is an Error, never anything else.
void visit(const Json& json) {
  const auto tolerate = [](auto access) {
    try {
      access();
    } catch (const Error& e) {
      require(e.kind == ErrorKind::bad_input && e.message.find('\n') == std::string::npos);
    }
  };
  tolerate([&] { json.integer(); });
  tolerate([&] { json.unsigned_integer(); });
  tolerate([&] { json.number(); });
  tolerate([&] { json.boolean(); });
  tolerate([&] { json.string("absent"); });
  if (json.kind() == Json::Kind::array)
    for (const Json& element : json.array()) visit(element);
  if (json.kind() == Json::Kind::object) {
    for (const JsonMember& member : json.object()) {
      require(json.find(member.key) == &member.value);
      visit(member.value);
    }
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const u8* data, std::size_t size) {
  Json json;
  try {
    json = parse_json({reinterpret_cast<const char*>(data), size});
  } catch (const Error& e) {
    require(e.kind == ErrorKind::bad_input && e.message.find('\n') == std::string::npos);
    return 0;
  }
  visit(json);
  const std::string compact = to_text(json), indented = to_text(json, 2);
  require(parse_json(compact) == json);
  require(parse_json(indented) == json);
  require(to_text(Json(json)) == compact);
  return 0;
}
