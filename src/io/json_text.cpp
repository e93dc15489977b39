// JSON text to values and back (RFC 8259).
#include <utility>

#include "io/json.h"

namespace signround {

namespace {

// Length of the well-formed UTF-8 sequence at the start of s (RFC 3629: no overlong form, no surrogate, at
// most U+10FFFF); 0 if none.
std::size_t utf8_length(std::string_view s) {
  const auto in = [&](std::size_t i, unsigned low, unsigned high) {
    return i < s.size() && static_cast<u8>(s[i]) >= low && static_cast<u8>(s[i]) <= high;
  };
  const auto tail = [&](std::size_t i) { return in(i, 0x80, 0xBF); };
  if (in(0, 0x00, 0x7F)) return 1;
  if (in(0, 0xC2, 0xDF)) return tail(1) ? 2 : 0;
  if (in(0, 0xE0, 0xEF)) {
    const bool second = s[0] == '\xE0' ? in(1, 0xA0, 0xBF) : s[0] == '\xED' ? in(1, 0x80, 0x9F) : tail(1);
    return second && tail(2) ? 3 : 0;
  }
  if (in(0, 0xF0, 0xF4)) {
    const bool second = s[0] == '\xF0' ? in(1, 0x90, 0xBF) : s[0] == '\xF4' ? in(1, 0x80, 0x8F) : tail(1);
    return second && tail(2) && tail(3) ? 4 : 0;
  }
  return 0;
}

void append_utf8(std::string& out, u32 code) {
  const auto byte = [&](u32 bits) { out += static_cast<char>(bits); };
  if (code < 0x80) {
    byte(code);
  } else if (code < 0x800) {
    byte(0xC0 | (code >> 6)), byte(0x80 | (code & 63));
  } else if (code < 0x10000) {
    byte(0xE0 | (code >> 12)), byte(0x80 | ((code >> 6) & 63)), byte(0x80 | (code & 63));
  } else {
    byte(0xF0 | (code >> 18)), byte(0x80 | ((code >> 12) & 63)), byte(0x80 | ((code >> 6) & 63)), byte(0x80 | (code & 63));
  }
}

bool is_digit(char c) { return c >= '0' && c <= '9'; }

}  // namespace

// No recursion: the containers that are still open form a stack, whose depth is capped.
class JsonParser {
 public:
  explicit JsonParser(std::string_view text) : text_(text) {}

  Json parse() {
    check(text_.size() <= kMaxJsonBytes, ErrorKind::bad_input, "JSON text of ", text_.size(), " bytes: the limit is ",
          kMaxJsonBytes);
    Json root;
    Json* place = &root;  // where the next value goes
    skip_space();
    do {
      read_value(*place);
      place = next_place();
    } while (place);
    if (pos_ < text_.size()) expected("the end of the text");
    return root;
  }

 private:
  // A scalar, or the opening of a container.
  void read_value(Json& place) {
    if (++values_ > kMaxJsonValues) error(pos_, cat("more than ", kMaxJsonValues, " values"));
    switch (peek()) {
      case '{': return open<Json::Object>(place);
      case '[': return open<Json::Array>(place);
      case '"': place.value_ = read_string(); return;
      case 't': return read_word("true", place, true);
      case 'f': return read_word("false", place, false);
      case 'n': return read_word("null", place, nullptr);
      default: place.value_ = Json::Number{std::string(read_number())};
    }
  }

  template <class Container>
  void open(Json& place) {
    if (open_.size() == kMaxJsonDepth) error(pos_, cat("nested deeper than ", kMaxJsonDepth));
    ++pos_;
    place.value_.emplace<Container>();
    open_.push_back(&place);
    just_opened_ = true;
  }

  // Closes what ends here; the place of the value that comes next, null at the end of the outermost value.
  Json* next_place() {
    for (;; open_.pop_back()) {
      skip_space();
      if (open_.empty()) return nullptr;
      Json::Object* const object = std::get_if<Json::Object>(&open_.back()->value_);
      const char close = object ? '}' : ']';
      const bool first = std::exchange(just_opened_, false);
      if (peek() == close) {
        ++pos_;
        continue;
      }
      if (!first) {
        if (peek() != ',') expected(object ? "',' or '}'" : "',' or ']'");
        ++pos_;
        skip_space();
      }
      if (object) return read_key(*object, first);
      return &std::get<Json::Array>(open_.back()->value_).emplace_back();
    }
  }

  Json* read_key(Json::Object& object, bool first) {
    const std::size_t start = pos_;
    if (peek() != '"') expected(first ? "a key in double quotes or '}'" : "a key in double quotes");
    std::string key = read_string();
    if (key.find('\0') != std::string::npos) error(start, "NUL in a key");
    Json* const place = object.add(std::move(key));
    if (!place) {
      pos_ = start;
      error(start, cat("key ", quote(read_string()), " occurs twice in one object"));
    }
    skip_space();
    if (peek() != ':') expected("':'");
    ++pos_;
    skip_space();
    return place;
  }

  void read_word(std::string_view word, Json& place, Json value) {
    if (text_.substr(pos_, word.size()) != word) expected("a value");
    pos_ += word.size();
    place = std::move(value);
  }

  // -?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?
  std::string_view read_number() {
    const std::size_t start = pos_;
    if (peek() == '-') ++pos_;
    if (!is_digit(peek())) expected(pos_ == start ? "a value" : "a digit");
    if (peek() == '0') {
      ++pos_;
      if (is_digit(peek())) expected("no digit after a leading zero");
    } else {
      skip_digits();
    }
    if (peek() == '.') {
      ++pos_;
      skip_digits();
    }
    if (peek() == 'e' || peek() == 'E') {
      ++pos_;
      if (peek() == '+' || peek() == '-') ++pos_;
      skip_digits();
    }
    return text_.substr(start, pos_ - start);
  }

  void skip_digits() {
    if (!is_digit(peek())) expected("a digit");
    while (is_digit(peek())) ++pos_;
  }

  // From the opening quote to behind the closing one, unescaped.
  std::string read_string() {
    std::string out;
    std::size_t start = ++pos_;  // of the run of bytes that stand for themselves
    for (;;) {
      const u8 c = static_cast<u8>(peek());
      if (c >= 0x20 && c < 0x80 && c != '"' && c != '\\') {
        ++pos_;
      } else if (c >= 0x80) {
        const std::size_t length = utf8_length(text_.substr(pos_));
        if (length == 0) expected("well-formed UTF-8");
        pos_ += length;
      } else {
        if (c < 0x20) expected(pos_ < text_.size() ? "no raw control character in a string" : "'\"'");
        out.append(text_.substr(start, pos_ - start));
        ++pos_;
        if (c == '"') return out;
        read_escape(out);
        start = pos_;
      }
    }
  }

  void read_escape(std::string& out) {
    static constexpr std::string_view kLetters = "\"\\/bfnrt", kMeanings = "\"\\/\b\f\n\r\t";
    const char letter = peek();
    if (letter != 'u') {
      const std::size_t which = pos_ < text_.size() ? kLetters.find(letter) : std::string_view::npos;
      if (which == std::string_view::npos) expected("one of \" \\ / b f n r t u after '\\'");
      ++pos_;
      out += kMeanings[which];
      return;
    }
    const std::size_t start = pos_ - 1;
    ++pos_;
    u32 code = read_hex4();
    if (code >= 0xD800 && code <= 0xDFFF) {  // a surrogate: only a high one with a low one behind it stands for a character
      const bool pair = code < 0xDC00 && text_.substr(pos_, 2) == "\\u";
      if (pair) pos_ += 2;
      const u32 low = pair ? read_hex4() : 0;
      if (low < 0xDC00 || low > 0xDFFF) error(start, "lone surrogate");
      code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00);
    }
    append_utf8(out, code);
  }

  u32 read_hex4() {
    u32 code = 0;
    for (int i = 0; i < 4; ++i, ++pos_) {
      const char c = peek();
      const int digit = is_digit(c) ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
      if (digit < 0) expected("four hexadecimal digits after '\\u'");
      code = 16 * code + static_cast<u32>(digit);
    }
    return code;
  }

  char peek() const { return pos_ < text_.size() ? text_[pos_] : '\0'; }  // NUL has no place in JSON, so it can stand for the end

  void skip_space() {
    while (pos_ < text_.size() && (text_[pos_] == ' ' || text_[pos_] == '\n' || text_[pos_] == '\t' || text_[pos_] == '\r'))
      ++pos_;
  }

  [[noreturn]] void expected(std::string_view what) const {
    const std::string found = pos_ >= text_.size()   ? "the end of the text"
                              : is_printable(peek()) ? cat("'", peek(), "'")
                                                     : cat("byte ", static_cast<int>(static_cast<u8>(peek())));
    error(pos_, cat("expected ", what, ", found ", found));
  }

  static bool is_printable(char c) { return c >= 0x20 && c < 0x7F; }

  [[noreturn]] void error(std::size_t at, std::string_view what) const {
    std::size_t line = 1, line_start = 0;
    for (std::size_t i = 0; i < at; ++i)
      if (text_[i] == '\n') ++line, line_start = i + 1;
    fail(ErrorKind::bad_input, "byte ", at, " (line ", line, ", column ", at - line_start + 1, "): ", what);
  }

  std::string_view text_;
  std::size_t pos_ = 0;
  i64 values_ = 0;
  std::vector<Json*> open_;  // a container does not grow while one of its elements is open, so the pointers hold
  bool just_opened_ = false;
};

class JsonPrinter {
 public:
  explicit JsonPrinter(int indent) : indent_(indent) {}

  void print(const Json& json, int depth) {
    switch (json.kind()) {
      case Json::Kind::null: out_ += "null"; break;
      case Json::Kind::boolean: out_ += json.boolean() ? "true" : "false"; break;
      case Json::Kind::number: out_ += std::get<Json::Number>(json.value_).text; break;
      case Json::Kind::string: print_string(json.string()); break;
      case Json::Kind::array:
        print_list('[', ']', json.array(), depth, [&](const Json& element) { print(element, depth + 1); });
        break;
      case Json::Kind::object:
        print_list('{', '}', json.object(), depth, [&](const JsonMember& member) {
          print_string(member.key);
          out_ += indent_ ? ": " : ":";
          print(member.value, depth + 1);
        });
        break;
    }
  }

  void print_string(std::string_view s) {
    static constexpr char kHex[] = "0123456789abcdef";
    static constexpr std::string_view kMeanings = "\"\\\b\f\n\r\t", kLetters = "\"\\bfnrt";
    out_ += '"';
    while (!s.empty()) {
      const std::size_t which = kMeanings.find(s[0]), length = utf8_length(s);
      if (which != std::string_view::npos) {
        out_ += '\\', out_ += kLetters[which];
      } else if (const u8 c = static_cast<u8>(s[0]); c < 0x20 || c == 0x7F) {
        out_ += "\\u00", out_ += kHex[c >> 4], out_ += kHex[c & 15];
      } else if (length == 0) {
        append_utf8(out_, 0xFFFD);
      } else {
        out_ += s.substr(0, length);
      }
      s.remove_prefix(length ? length : 1);
    }
    out_ += '"';
  }

  std::string take() { return std::move(out_); }

 private:
  template <class List, class F>
  void print_list(char open, char close, const List& list, int depth, F print_one) {
    out_ += open;
    bool first = true;
    for (const auto& one : list) {
      if (!std::exchange(first, false)) out_ += ',';
      new_line(depth + 1);
      print_one(one);
    }
    if (!first) new_line(depth);
    out_ += close;
  }

  void new_line(int depth) {
    if (indent_ > 0) out_ += '\n', out_.append(static_cast<std::size_t>(indent_ * depth), ' ');
  }

  std::string out_;
  int indent_;
};

Json parse_json(std::string_view text) {
  JsonParser parser(text);
  return parser.parse();
}

std::string to_text(const Json& json, int indent) {
  JsonPrinter printer(indent);
  printer.print(json, 0);
  return printer.take();
}

std::string quote(std::string_view s) {
  constexpr std::size_t kLongest = 120;
  JsonPrinter printer(0);
  printer.print_string(s.substr(0, kLongest));
  return s.size() > kLongest ? cat(printer.take(), "... (", s.size(), " bytes)") : printer.take();
}

}  // namespace signround
