#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "io/json.h"
#include "scratch.h"

using namespace signround;

namespace {

std::string repeated(std::string_view s, int n) {
  std::string out;
  for (int i = 0; i < n; ++i) out += s;
  return out;
}

struct Case {
  std::string text;
  std::string error;  // part of the message; empty: the text is valid
};

const std::vector<Case> kCases = {
    // valid
    {"null", ""},
    {"true", ""},
    {"false", ""},
    {" \t\r\n0 \t\r\n", ""},
    {"-0", ""},
    {"-0.0e-0", ""},
    {"1E+2", ""},
    {"0.5", ""},
    {"123456789012345678901234567890", ""},
    {"1e400", ""},
    {"\"\"", ""},
    {"[]", ""},
    {"{}", ""},
    {"[[],{}]", ""},
    {"[1,\"a\",null]", ""},
    {R"({"a":{"b":[{}]}})", ""},
    {R"("\"\\\/\b\f\n\r\t\u0041\u00e9\u20AC")", ""},
    {R"("\ud83d\ude00")", ""},
    {R"("\u0000")", ""},
    {"\"\x7f\"", ""},
    {"\"\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80\"", ""},
    {"\"\xef\xbb\xbf\"", ""},
    {R"({"a":1,"b":1})", ""},
    {R"({"":0})", ""},
    {"\"\xed\x9f\xbf\xee\x80\x80\xf4\x8f\xbf\xbf\"", ""},
    {repeated("[", kMaxJsonDepth) + repeated("]", kMaxJsonDepth), ""},
    // structure
    {"", "expected a value, found the end of the text"},
    {" ", "expected a value"},
    {"[", "expected a value"},
    {"]", "expected a value, found ']'"},
    {"[1", "expected ',' or ']'"},
    {"[1 2]", "expected ',' or ']', found '2'"},
    {"[1,]", "expected a value, found ']'"},
    {"[,1]", "expected a value"},
    {"[1,,2]", "expected a value"},
    {"[1}", "expected ',' or ']'"},
    {"{", "expected a key in double quotes or '}'"},
    {"{\"a\"", "expected ':'"},
    {"{\"a\":", "expected a value"},
    {"{\"a\":1", "expected ',' or '}'"},
    {"{\"a\":1,}", "expected a key in double quotes, found '}'"},
    {"{,}", "expected a key"},
    {"{\"a\" 1}", "expected ':'"},
    {"{\"a\":1]", "expected ',' or '}'"},
    {"{a:1}", "expected a key in double quotes"},
    {"{'a':1}", "expected a key"},
    {"{1:1}", "expected a key"},
    {"{\"a\":}", "expected a value"},
    {"{\"a\"::1}", "expected a value"},
    {"1 2", "expected the end of the text, found '2'"},
    {"{}{}", "expected the end"},
    {"[]]", "expected the end"},
    {std::string("{}\0", 3), "expected the end of the text, found byte 0"},
    {std::string("\0", 1), "expected a value, found byte 0"},
    {"\xef\xbb\xbf{}", "expected a value, found byte 239"},
    {"[1]//x", "expected the end"},
    {"/**/1", "expected a value"},
    {"\f1", "expected a value"},
    {"\xc2\xa0"
     "1",
     "expected a value"},
    {repeated("[", kMaxJsonDepth + 1) + repeated("]", kMaxJsonDepth + 1), "nested deeper than 64"},
    {repeated("[", 100000), "nested deeper"},
    {repeated("{\"a\":", 100000), "nested deeper"},
    // words and numbers
    {"nul", "expected a value"},
    {"True", "expected a value"},
    {"truee", "expected the end"},
    {"NaN", "expected a value"},
    {"Infinity", "expected a value"},
    {"-Infinity", "expected a digit, found 'I'"},
    {"-", "expected a digit"},
    {"+2", "expected a value"},
    {"02", "no digit after a leading zero"},
    {"-02", "no digit after a leading zero"},
    {".5", "expected a value"},
    {"5.", "expected a digit"},
    {"5.e1", "expected a digit"},
    {"1e", "expected a digit"},
    {"1e+", "expected a digit"},
    {"1.2.3", "expected the end"},
    {"0x10", "expected the end"},
    {"1_0", "expected the end"},
    {"- 1", "expected a digit"},
    // strings
    {"\"", "expected '\"', found the end"},
    {"\"a", "expected '\"'"},
    {"\"\\", "after '\\', found the end"},
    {"\"\\\"", "expected '\"'"},
    {R"("\x41")", "after '\\'"},
    {R"("\'")", "after '\\'"},
    {R"("\u12")", "four hexadecimal digits"},
    {R"("\u12G4")", "four hexadecimal"},
    {R"("\U0041")", "after '\\'"},
    {R"("\ud800")", "lone surrogate"},
    {R"("\udc00")", "lone surrogate"},
    {R"("\ud800\u0041")", "lone surrogate"},
    {R"("\ud800\ud800")", "lone surrogate"},
    {R"("\ud800x")", "lone surrogate"},
    {"\"a\nb\"", "no raw control character"},
    {"\"\t\"", "no raw control character"},
    {std::string("\"\0\"", 3), "no raw control character"},
    {"'a'", "expected a value"},
    {"\"\xff\"", "well-formed UTF-8"},
    {"\"\x80\"", "well-formed UTF-8"},
    {"\"\xc0\x80\"", "well-formed UTF-8"},
    {"\"\xc1\xbf\"", "well-formed UTF-8"},
    {"\"\xe0\x9f\xbf\"", "well-formed UTF-8"},
    {"\"\xed\xa0\x80\"", "well-formed UTF-8"},
    {"\"\xf0\x8f\xbf\xbf\"", "well-formed UTF-8"},
    {"\"\xf4\x90\x80\x80\"", "well-formed UTF-8"},
    {"\"\xf5\x80\x80\x80\"", "well-formed UTF-8"},
    {"\"\xe2\x82\"", "well-formed UTF-8"},
    {"\"\xe2\x82", "well-formed UTF-8"},
    // keys
    {R"({"a":1,"a":1})", "byte 7 (line 1, column 8): key \"a\" occurs twice"},
    {R"({"t":1,"\u0074":2})", "key \"t\" occurs twice"},
    {R"({"x":{"a":1,"b":2,"a":3}})", "key \"a\" occurs twice"},
    {R"({"":1,"":2})", "key \"\" occurs twice"},
    {R"({"a\u0000":1})", "NUL in a key"},
};

}  // namespace

TEST_CASE("json: valid and invalid texts") {
  for (const Case& c : kCases) {
    CAPTURE(c.text.substr(0, 100));
    Json json;
    const std::string error = error_of([&] { json = parse_json(c.text); });
    if (c.error.empty()) {
      CHECK(error == "");
      CHECK(parse_json(to_text(json)) == json);
      CHECK(parse_json(to_text(json, 2)) == json);
    } else {
      CHECK(error.find(c.error) != std::string::npos);
      CHECK(error.substr(0, 5) == "byte ");
    }
  }
}

TEST_CASE("json: errors say where") {
  CHECK(error_of([] { parse_json("{\n  \"a\": 1,\n  \"b\": tru\n}"); }) ==
        "byte 19 (line 3, column 8): expected a value, found 't'");
  CHECK(error_of([] { parse_json("[1"); }) == "byte 2 (line 1, column 3): expected ',' or ']', found the end of the text");
}

TEST_CASE("json: numbers keep every bit") {
  const auto integer = [](std::string_view text) { return parse_json(text).integer(); };
  const auto unsigned_integer = [](std::string_view text) { return parse_json(text).unsigned_integer(); };
  const auto number = [](std::string_view text) { return parse_json(text).number(); };

  CHECK(integer("9007199254740993") == 9007199254740993);  // 2^53 + 1 is no double
  CHECK(integer("9223372036854775807") == std::numeric_limits<i64>::max());
  CHECK(integer("-9223372036854775808") == std::numeric_limits<i64>::min());
  CHECK(integer("-0") == 0);
  CHECK(unsigned_integer("9223372036854775808") == u64{1} << 63);
  CHECK(unsigned_integer("18446744073709551615") == std::numeric_limits<u64>::max());
  for (const char* text :
       {"9223372036854775808", "-9223372036854775809", "1.0", "1e2", "1E2", "true", "\"1\"", "null", "[]", "{}"}) {
    CAPTURE(text);
    CHECK(error_of([&] { integer(text); }).find("expected an integer of 64 bits, found ") == 0);
  }
  for (const char* text : {"18446744073709551616", "-1", "-0", "2.0", "2e0", "\"2\""}) {
    CAPTURE(text);
    CHECK(error_of([&] { unsigned_integer(text); }).find("expected an integer from 0 to 2^64-1, found ") == 0);
  }

  CHECK(number("9007199254740993") == 9007199254740992.0);
  CHECK(number("0.1") == 0.1);
  CHECK(std::signbit(number("-0")));
  CHECK(number("1.7976931348623157e308") == std::numeric_limits<double>::max());
  CHECK(number("5e-324") == std::numeric_limits<double>::denorm_min());
  CHECK(number("0e-999") == 0.0);
  CHECK(error_of([&] { number("1e400"); }) == "expected a number in the range of a double, found 1e400");
  CHECK(error_of([&] { number("-1e400"); }) != "");
  CHECK(error_of([&] { number("null"); }) != "");
}

TEST_CASE("json: written numbers read back as the same number") {
  for (const double x : {0.0, -0.0, 1.0, 0.1, 1e21, 1e-7, 123456789.0, 5e-324, 1.7976931348623157e308, 1.0 / 3, 10000.0}) {
    const Json back = parse_json(to_text(Json(x)));
    CHECK(back.number() == x);
    CHECK(std::signbit(back.number()) == std::signbit(x));
    CHECK(error_of([&] { back.integer(); }) != "");  // a double stays a double
  }
  CHECK(to_text(Json(0.01)) == "0.01");
  CHECK(to_text(Json(0.1f)) == "0.1");
  CHECK(to_text(Json(1e5)) == "1e+05");
  CHECK(to_text(Json(200.0)) == "200.0");
  CHECK(to_text(Json(std::numeric_limits<double>::infinity())) == "null");
  CHECK(to_text(Json(std::numeric_limits<double>::quiet_NaN())) == "null");
  CHECK(to_text(Json(std::numeric_limits<u64>::max())) == "18446744073709551615");
  CHECK(to_text(Json(std::numeric_limits<i64>::min())) == "-9223372036854775808");
}

TEST_CASE("json: construction and printing") {
  const Json json = Json::object({{"bits", 4},
                                  {"sym", true},
                                  {"name", "a\"\\\n\x01\x7f\xc3\xa9"},
                                  {"none", nullptr},
                                  {"groups", Json::array({32, 128})},
                                  {"empty", Json::object({})},
                                  {"list", Json::array({})}});
  CHECK(to_text(json) ==
        R"({"bits":4,"sym":true,"name":"a\"\\\n\u0001\u007fé","none":null,"groups":[32,128],"empty":{},"list":[]})");
  CHECK(to_text(json, 2) ==
        "{\n  \"bits\": 4,\n  \"sym\": true,\n  \"name\": \"a\\\"\\\\\\n\\u0001\\u007f\xc3\xa9\",\n  \"none\": null,\n  "
        "\"groups\": [\n    32,\n"
        "    128\n  ],\n  \"empty\": {},\n  \"list\": []\n}");
  CHECK(parse_json(to_text(json)) == json);
  CHECK(to_text(Json("a\xff\xe2\x82z")) == "\"a\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbdz\"");  // always valid, whatever the bytes
  CHECK_THROWS_AS(Json::object({{"a", 1}, {"a", 2}}), Error);
}

TEST_CASE("json: a file that is read, extended and written keeps the rest") {
  Json json = parse_json(R"({"z":1.50,"a":[1e2,{"y":-0,"b":null}],"big":123456789012345678901234567890})");
  json.set("quantization_config", Json::object({{"bits", 4}}));
  json.set("z", "new");
  json.set("list", nullptr).push(1);
  CHECK(to_text(json) == R"({"z":"new","a":[1e2,{"y":-0,"b":null}],"big":123456789012345678901234567890,)"
                         R"("quantization_config":{"bits":4},"list":[1]})");
  CHECK_THROWS_AS(json.push(1), Error);
  CHECK_THROWS_AS(Json(1).set("a", 1), Error);
}

TEST_CASE("json: access by key") {
  const Json json = parse_json(R"({"n":3,"x":0.5,"s":"text","b":true,"null":null,"l":[1,2],"o":{"k":"v"}})");
  CHECK(json.integer("n") == 3);
  CHECK(json.number("x") == 0.5);
  CHECK(json.number("n") == 3.0);
  CHECK(json.string("s") == "text");
  CHECK(json.boolean("b"));
  CHECK(json.array("l").size() == 2);
  CHECK(json.object("o")[0].key == "k");
  CHECK(json.at("o").string("k") == "v");
  CHECK(json.find("absent") == nullptr);
  CHECK(json.find("null")->is_null());
  CHECK(json.integer("absent", 7) == 7);
  CHECK(json.integer("null", 7) == 7);
  CHECK(json.integer("n", 7) == 3);
  CHECK(json.string("absent", "d") == "d");
  CHECK(json.boolean("absent", true));
  CHECK(json.number("absent", 0.25) == 0.25);

  CHECK(error_of([&] { json.at("absent"); }) == "key \"absent\" is missing");
  CHECK(error_of([&] { json.integer("absent"); }) == "key \"absent\" is missing");
  CHECK(error_of([&] { json.integer("s"); }) == "key \"s\": expected an integer of 64 bits, found the string \"text\"");
  CHECK(error_of([&] { json.integer("x", 7); }) == "key \"x\": expected an integer of 64 bits, found 0.5");
  CHECK(error_of([&] { json.string("n"); }) == "key \"n\": expected a string, found 3");
  CHECK(error_of([&] { json.boolean("l"); }) == "key \"l\": expected true or false, found an array of 2");
  CHECK(error_of([&] { json.array("o"); }) == "key \"o\": expected an array, found an object");
  CHECK(error_of([&] { json.object("null"); }) == "key \"null\": expected an object, found null");
  CHECK(error_of([&] { json.at("l").find("k"); }) == "expected an object, found an array of 2");
}

TEST_CASE("json: large objects are found by key, copies included") {
  constexpr i64 kCount = 100000;
  std::string text = "{";
  for (i64 i = 0; i < kCount; ++i) text += cat(i ? "," : "", "\"key ", i, "\":", i);
  const Json json = parse_json(text + "}");
  const Json copy = json;
  for (i64 i = 0; i < kCount; ++i) {
    const std::string key = cat("key ", i);
    if (json.integer(key) != i || copy.integer(key) != i) FAIL(key);
  }
  CHECK(json.find("key 100000") == nullptr);
  CHECK(json.object()[777].key == "key 777");
  CHECK(error_of([&] { parse_json(text + ",\"key 5\":0}"); }).find("key \"key 5\" occurs twice") != std::string::npos);
}

TEST_CASE("json: every prefix of a valid document fails cleanly") {
  const std::string text = R"({"a":[1,-2.5e+3,true,false,null,"x\u00e9\ud83d\ude00é\n"],"b":{"c":{},"d":[]},"e":0})";
  const Json json = parse_json(text);
  for (std::size_t n = 0; n < text.size(); ++n) {
    const std::string error = error_of([&] { parse_json(text.substr(0, n)); });
    CAPTURE(n);
    CHECK(error != "");
    CHECK(error.find('\n') == std::string::npos);
  }
  CHECK(parse_json(to_text(json)) == json);
}

TEST_CASE("json: texts beyond the size limit are refused unread") {
  CHECK(error_of([] { parse_json(std::string(kMaxJsonBytes + 1, ' ')); }).find("the limit is 268435456") != std::string::npos);
}

TEST_CASE("json: names in errors stay short and on one line") {
  CHECK(quote("a\nb") == "\"a\\nb\"");
  CHECK(quote(std::string(1000, 'x')).size() < 150);
  CHECK(quote(std::string(1000, 'x')).find("(1000 bytes)") != std::string::npos);
}
