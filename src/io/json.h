// JSON: one document model for config.json, tokenizer.json, safetensors headers and --json output.
// An object keeps the order of its members and finds them by hash; a number keeps its text until it is asked for, so that what is
// read and written again is unchanged, and no integer passes through a double.
#pragma once
#include <concepts>
#include <cstddef>
#include <initializer_list>
#include <memory>
#include <string>
#include <string_view>
#include <type_traits>
#include <variant>
#include <vector>

#include "base/dtype.h"
#include "base/error.h"

namespace signround {

inline constexpr std::size_t kMaxJsonBytes = std::size_t{256} << 20;
inline constexpr int kMaxJsonDepth = 64;
inline constexpr i64 kMaxJsonValues = i64{1} << 24;  // a value takes 40 bytes of memory, but only 2 of text

class Json;
struct JsonMember;

// Throws Error{bad_input}: byte offset, line, column and what was expected there. Stricter than most readers: no duplicate keys
// (compared after unescaping), no NUL in a key, only well-formed UTF-8, nothing but white space around the one value.
Json parse_json(std::string_view text);

// indent 0: one line without spaces; else one member or element a line, indented by so many spaces a level. No newline at the
// end. A string that is not UTF-8 has its broken bytes replaced by U+FFFD.
std::string to_text(const Json& json, int indent = 0);

// s as a JSON string, cut when long: how names that come from a file are shown in errors.
std::string quote(std::string_view s);

class Json {
 public:
  enum class Kind : u8 { null, boolean, number, string, array, object };
  using Array = std::vector<Json>;
  using Members = std::vector<JsonMember>;

  // Construction: Json::object({{"bits", 4}, {"groups", Json::array({32, 128})}, {"name", "w4"}}).
  Json() = default;  // null
  Json(std::nullptr_t) {}
  template <std::same_as<bool> T>
  Json(T value) : value_(value) {}
  template <std::integral T>
  requires(!std::same_as<T, bool>) Json(T value) : value_(Number{std::to_string(value)}) {}
  Json(double value);  // the shortest text that reads back as the same number; null if not finite, for JSON has no such number
  Json(float value);
  Json(std::string value) : value_(std::move(value)) {}
  Json(std::string_view value) : Json(std::string(value)) {}
  Json(const char* value) : Json(std::string(value)) {}
  static Json array(std::initializer_list<Json> elements);
  static Json object(std::initializer_list<JsonMember> members);  // a key given twice is a bug

  Kind kind() const { return static_cast<Kind>(value_.index()); }
  bool is_null() const { return kind() == Kind::null; }

  // The value as one type; anything else is Error{bad_input} that says what was found instead.
  bool boolean() const;
  i64 integer() const;           // exact: 2.0, 2e0 and anything beyond 64 bits are refused
  u64 unsigned_integer() const;  // as integer(), and no sign, not even -0
  double number() const;         // the nearest double; beyond the range of a double is refused
  const std::string& string() const;
  const Array& array() const;
  const Members& object() const;

  // Members of an object by key. Error{bad_input} if this is no object.
  const Json* find(std::string_view key) const;  // null if absent
  const Json& at(std::string_view key) const;    // Error{bad_input} naming the key if absent

  // at(key) as one type; errors name the key.
  bool boolean(std::string_view key) const;
  i64 integer(std::string_view key) const;
  double number(std::string_view key) const;
  const std::string& string(std::string_view key) const;
  const Array& array(std::string_view key) const;
  const Members& object(std::string_view key) const;
  // The same, or the fallback where the key is absent or null.
  bool boolean(std::string_view key, bool fallback) const;
  i64 integer(std::string_view key, i64 fallback) const;
  double number(std::string_view key, double fallback) const;
  std::string string(std::string_view key, std::string_view fallback) const;

  // Changes. null becomes an empty array or object first; any other kind is Error{bug}.
  void push(Json element);
  Json& set(std::string_view key, Json value);  // replaces in place or appends; returns the member's value

  bool operator==(const Json& other) const;  // numbers by their text, objects with their order

 private:
  friend class JsonParser;
  friend class JsonPrinter;
  struct Number {
    std::string text;
    bool operator==(const Number&) const = default;
  };
  // Members in order; beyond a few, an open-addressed table of positions + 1 in members finds them (0: free slot).
  struct Object {
    Members members;
    std::unique_ptr<std::vector<u32>> slots;

    Object();
    ~Object();
    Object(Object&&) noexcept;
    Object& operator=(Object&&) noexcept;
    Object(const Object& other);
    Object& operator=(const Object& other) { return *this = Object(other); }
    bool operator==(const Object& other) const;
    const Json* find(std::string_view key) const;
    Json* add(std::string key);  // a new null member; null if the key is there already. Invalidates pointers to other members
    void rebuild_slots();
  };

  std::string describe() const;  // for errors: string "abc"
  template <class T>
  const T& as(std::string_view wanted) const;
  template <class T>
  T parse_number(std::string_view wanted) const;

  std::variant<std::monostate, bool, Number, std::string, Array, Object> value_;
};

struct JsonMember {
  std::string key;
  Json value;
  bool operator==(const JsonMember&) const = default;
};

// Here, because they need the complete JsonMember.
inline Json::Object::Object() = default;
inline Json::Object::~Object() = default;
inline Json::Object::Object(Object&&) noexcept = default;
inline Json::Object& Json::Object::operator=(Object&&) noexcept = default;

}  // namespace signround
