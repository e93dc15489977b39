#include <algorithm>
#include <limits>

#include "io/safetensors.h"
#include "scratch.h"

using namespace signround;

namespace {

constexpr u64 kMaxU64 = std::numeric_limits<u64>::max();

std::string little_endian(u64 n) {
  std::string bytes(8, '\0');
  for (int i = 0; i < 8; ++i) bytes[static_cast<std::size_t>(i)] = static_cast<char>(n >> (8 * i));
  return bytes;
}

// A file: the length of the header, the header, so many bytes of data.
std::string file(const std::string& header, std::size_t data = 0) {
  return little_endian(header.size()) + header + std::string(data, 'd');
}

// One tensor "t".
std::string entry(const std::string& dtype, const std::string& shape, const std::string& offsets, const std::string& more = "") {
  return R"({"t":{"dtype":")" + dtype + R"(","shape":)" + shape + R"(,"data_offsets":)" + offsets + more + "}}";
}

std::string u8_tensor(const std::string& name, int begin, int end) {
  return cat('"', name, R"(":{"dtype":"U8","shape":[)", end - begin, R"(],"data_offsets":[)", begin, ",", end, "]}");
}

std::string repeated(std::string_view s, int n) {
  std::string out;
  for (int i = 0; i < n; ++i) out += s;
  return out;
}

SafetensorsHeader parse(const std::string& bytes) {
  return parse_safetensors_header({reinterpret_cast<const u8*>(bytes.data()), bytes.size()}, bytes.size());
}

struct Case {
  int row;  // of the rejection table: the numbers by which the project talks of them
  std::string bytes;
  std::string error;  // part of the message; empty: the file is valid
};

std::vector<Case> table() {
  std::vector<Case> cases;
  const auto add = [&](int row, const std::string& bytes, const std::string& error) { cases.push_back({row, bytes, error}); };
  const std::string good = entry("I32", "[2,2]", "[0,16]");

  for (std::size_t n = 0; n < 8; ++n) add(1, std::string(n, '\1'), "too few for a safetensors file");
  add(2, little_endian(0) + "{}", "its length is 0");
  add(3, little_endian(3) + "{}", "its length is 3 but only 2 bytes are left");
  add(4, little_endian(100'000'001) + "{}", "the limit is 100000000");
  add(5, little_endian(kMaxU64) + "{}", "the limit is 100000000");
  add(5, little_endian(kMaxU64 - 7) + "{}", "the limit is 100000000");
  add(6, file("[]"), "expected an object, found an array");
  add(6, file("null"), "expected an object, found null");
  add(6, file("\"x\""), "expected an object, found the string");
  add(6, file("7"), "expected an object, found 7");
  for (const char* bad : {"\xff", "\xc0\x80", "\xed\xa0\x80"})
    add(7, file(R"({"__metadata__":{"a":")" + std::string(bad) + "\"}}"), "UTF-8");
  add(8, file("\xef\xbb\xbf{}"), "expected a value, found byte 239");
  add(9, file(std::string("{}\0\0", 4)), "expected the end of the text");
  add(9, file("{} x"), "expected the end of the text");
  add(9, file("{}{}"), "expected the end of the text");
  add(10, file(R"({"__metadata__":{"a":"b"},})"), "expected a key");
  add(10, file(entry("I32", "[2,2,]", "[0,16]"), 16), "expected a value");
  add(10, file("{/*c*/}"), "expected a key");
  add(10, file("{'t':1}"), "expected a key");
  add(10, file(entry("I32", "[NaN]", "[0,16]"), 16), "expected a value");
  add(10, file(entry("I32", "[+2]", "[0,8]"), 8), "expected a value");
  add(10, file(entry("I32", "[02]", "[0,8]"), 8), "leading zero");
  add(10, file(good.substr(0, good.size() - 1), 16), "expected ',' or '}'");
  add(11, file("{\"a\nb\":{}}"), "control character");
  add(11, file(R"({"\x41":{}})"), "after '\\'");
  add(11, file(R"({"\ud800":{}})"), "lone surrogate");
  add(12, file(entry("I32", "[2,2]", "[0,16]", ",\"x\":" + repeated("[", 100000) + repeated("]", 100000)), 16), "nested deeper");
  add(13, file(entry("I32", "[2,2]", "[0,16]", ",\"x\":" + repeated("[", 120) + repeated("]", 120)), 16), "nested deeper");
  add(14, file("{" + u8_tensor("t", 0, 4) + "," + u8_tensor("t", 4, 8) + "}", 8), "key \"t\" occurs twice");
  add(14, file("{" + u8_tensor("t", 0, 4) + "," + u8_tensor("\\u0074", 4, 8) + "}", 8), "key \"t\" occurs twice");
  add(15, file(R"({"__metadata__":{"a":"b","a":"c"}})"), "key \"a\" occurs twice");
  add(16, file(entry("I32", "[2,2]", "[0,16]", R"(,"dtype":"I32")"), 16), "key \"dtype\" occurs twice");
  add(16, file(R"({"__metadata__":{},"__metadata__":{}})"), "key \"__metadata__\" occurs twice");
  add(17, file(entry("I32", "[2,2]", "[0,16]", R"(,"extra":1)"), 16), "tensor \"t\": unknown field \"extra\"");
  add(18, file(R"({"t":["I32",[2,2],[0,16]]})", 16), "tensor \"t\": expected an object, found an array of 3");
  add(19, file(R"({"t":{"dtype":{"I32":null},"shape":[2,2],"data_offsets":[0,16]}})", 16), "key \"dtype\": expected a string");
  add(20, file(R"({"__metadata__":null})"), "");
  add(21, file(R"({"__metadata__":{"a":1}})"), "__metadata__: \"a\": expected a string, found 1");
  add(21, file(R"({"__metadata__":{"a":{}}})"), "__metadata__: \"a\": expected a string, found an object");
  add(21, file(R"({"__metadata__":[]})"), "__metadata__: expected an object");
  add(22, file(R"({"t":{"shape":[2],"data_offsets":[0,2]}})", 2), "key \"dtype\" is missing");
  add(22, file(R"({"t":{"dtype":"U8","data_offsets":[0,2]}})", 2), "key \"shape\" is missing");
  add(22, file(R"({"t":{"dtype":"U8","shape":[2]}})", 2), "key \"data_offsets\" is missing");
  add(22, file(R"({"t":null})"), "tensor \"t\": expected an object, found null");
  add(22, file(entry("i32", "[2,2]", "[0,16]"), 16), "unknown dtype \"i32\"");
  add(22, file(entry("", "[2,2]", "[0,16]"), 16), "unknown dtype \"\"");
  add(22, file(R"({"t":{"dtype":5,"shape":[2],"data_offsets":[0,2]}})", 2), "key \"dtype\": expected a string, found 5");
  for (const char* dim : {"2.0", "2e0", "-2", "-0", "\"2\"", "18446744073709551616"})
    add(23, file(entry("U8", cat("[", dim, "]"), "[0,2]"), 2), "shape: expected an integer from 0 to 2^64-1");
  add(23, file(entry("U8", "[9007199254740993]", "[0,0]")), "dimension 9007199254740993, the limit is");
  add(24, file(entry("F32", "[4294967296,4294967296]", "[0,0]")), "size overflows");
  add(24, file(entry("U8", "[281474976710656,281474976710656]", "[0,0]")), "size overflows");
  add(24, file(entry("F64", "[281474976710656,4096]", "[0,0]")), "size overflows");
  add(25, file(entry("U8", "[0,18446744073709551615,18446744073709551615]", "[0,0]")), "the limit is 281474976710656");
  add(25, file(entry("U8", "[0,281474976710656,281474976710656]", "[0,0]")), "size overflows");
  add(25, file(entry("U8", "[281474976710656,281474976710656,0]", "[0,0]")), "size overflows");
  add(26, file(entry("U8", "[1" + repeated(",1", 999) + "]", "[0,1]"), 1), "rank 1000, the limit is 8");
  add(26, file(entry("U8", "[1,1,1,1,1,1,1,1,1]", "[0,1]"), 1), "rank 9, the limit is 8");
  add(26, file(entry("U8", "[1,1,1,1,1,1,1,1]", "[0,1]"), 1), "");
  add(27, file(entry("U8", "[2]", "[0]"), 2), "data_offsets has 1 elements instead of 2");
  add(27, file(entry("U8", "[2]", "[0,2,2]"), 2), "data_offsets has 3 elements instead of 2");
  add(27, file(entry("U8", "[2]", "[2,0]"), 2), "data_offsets [2,0] are reversed");
  add(27, file(entry("U8", "[2]", "[1,3]"), 3), "tensor \"t\": 1 bytes in front of it belong to no tensor");
  add(27, file(entry("U8", "[2]", "[0,2]"), 1), "data_offsets [0,2] reach past the 1 bytes of data");
  add(27, file(entry("U8", "[2]", "[0,18446744073709551615]"), 2), "reach past");
  add(27, file(entry("U8", "[2]", "[18446744073709551614,18446744073709551615]"), 2), "reach past");
  add(27, file(entry("U8", "[2]", "[-1,1]"), 2), "data_offsets: expected an integer");
  add(28, file(entry("BF16", "[3,2]", "[0,11]"), 11), "shape [3,2] x BF16 needs 12 bytes but data_offsets span 11");
  add(28, file(entry("I32", "[]", "[0,8]"), 8), "shape [] x I32 needs 4 bytes");
  add(28, file(entry("F4", "[3]", "[0,2]"), 2), "does not end on a byte");
  add(28, file(entry("F6_E2M3", "[3]", "[0,3]"), 3), "does not end on a byte");
  add(28, file(entry("F4", "[4]", "[0,2]"), 2), "");
  add(28, file(entry("F6_E3M2", "[4]", "[0,3]"), 3), "");
  add(29, file("{" + u8_tensor("a", 0, 4) + "," + u8_tensor("b", 0, 4) + "}", 4), "tensor \"b\": overlaps");
  add(29, file("{" + u8_tensor("a", 0, 4) + "," + u8_tensor("b", 3, 6) + "}", 6), "tensor \"b\": overlaps");
  add(29, file("{" + u8_tensor("a", 0, 4) + "," + u8_tensor("b", 5, 6) + "}", 6), "1 bytes in front of it belong to no tensor");
  add(29, file(entry("U8", "[2]", "[0,2]"), 5), "the last 3 bytes of the file belong to no tensor");
  add(29, file("{}", 1), "the last 1 bytes of the file belong to no tensor");
  add(29, file("{" + u8_tensor("a", 0, 4) + "," + u8_tensor("e", 2, 2) + "}", 4), "tensor \"e\": overlaps");
  add(30, file("{" + u8_tensor("", 0, 1) + "}", 1), "the name is empty");
  add(30, file("{" + u8_tensor("a\\u0000", 0, 1) + "}", 1), "NUL in a key");
  add(30, file("{" + u8_tensor("a\\n", 0, 1) + "}", 1), "the name has a control character");
  add(30, file("{" + u8_tensor("a\x7f", 0, 1) + "}", 1), "the name has a control character");
  add(30, file("{" + u8_tensor("\xc2\x9b", 0, 1) + "}", 1), "the name has a control character");
  add(30, file("{" + u8_tensor("\xc2\xa0", 0, 1) + "}", 1), "");
  add(30, file("{" + u8_tensor("../../x", 0, 1) + "}", 1), "");
  add(31, file("{" + u8_tensor("a", 0, 1) + R"(,"f":{"dtype":"F32","shape":[1],"data_offsets":[1,5]}})", 5), "");
  add(32, file("{" + u8_tensor("b", 4, 6) + "," + u8_tensor("a", 0, 4) + "}", 6), "");
  add(32,
      file(
          "{" + u8_tensor("b", 4, 6) + "," + u8_tensor("e", 4, 4) + "," + u8_tensor("a", 0, 4) + "," + u8_tensor("l", 6, 6) + "}",
          6),
      "");
  add(33, file("{" + u8_tensor(std::string(65537, 'n'), 0, 1) + "}", 1), "the name has more than 65536 bytes");
  add(33, file("{" + u8_tensor(std::string(65536, 'n'), 0, 1) + "}", 1), "");
  return cases;
}

}  // namespace

TEST_CASE("safetensors: the rejection table") {
  std::vector<int> seen;
  for (const Case& c : table()) {
    CAPTURE(c.row);
    CAPTURE(c.bytes.substr(0, 200));
    const std::string error = error_of([&] { parse(c.bytes); });
    CAPTURE(error);
    CHECK((c.error.empty() ? error.empty() : contains(error, c.error) && error.starts_with("header: ")));
    seen.push_back(c.row);
  }
  for (int row = 1; row <= 33; ++row) CHECK(std::count(seen.begin(), seen.end(), row) > 0);
}

TEST_CASE("safetensors: more tensors than the limit") {  // row 33
  std::string header = "{";
  for (i64 i = 0; i <= kMaxTensors; ++i) header += cat(i ? ",\"" : "\"", i, "\":0");
  CHECK(contains(error_of([&] { parse(file(header + "}")); }), "1000001 entries, the limit is 1000000 tensors"));
}

TEST_CASE("safetensors: what a header says") {
  const std::string header =
      R"( {"b":{"dtype":"BF16","shape":[2,3],"data_offsets":[8,20]},"__metadata__":{"format":"pt","k":"\u0000"},)"
      R"("a":{"dtype":"F64","shape":[],"data_offsets":[0,8]},"e":{"dtype":"I8","shape":[3,0],"data_offsets":[8,8]}} )";
  const SafetensorsHeader h = parse(file(header, 20));
  REQUIRE(h.tensors.size() == 3);
  const u64 data = 8 + header.size();
  CHECK(h.tensors[0].name == "a");
  CHECK(h.tensors[0].dtype == DType::f64);
  CHECK(h.tensors[0].shape.empty());
  CHECK(h.tensors[0].offset == data);
  CHECK(h.tensors[0].bytes == 8);
  CHECK(h.tensors[1].name == "e");
  CHECK(h.tensors[1].shape == std::vector<i64>{3, 0});
  CHECK(h.tensors[1].bytes == 0);
  CHECK(h.tensors[2].name == "b");
  CHECK(h.tensors[2].shape == std::vector<i64>{2, 3});
  CHECK(h.tensors[2].offset == data + 8);
  CHECK(h.tensors[2].bytes == 12);
  CHECK(h.metadata == Metadata{{"format", "pt"}, {"k", std::string(1, '\0')}});
  CHECK(parse(file("{}")).tensors.empty());
}

TEST_CASE("safetensors: every dtype has the size that its name says") {
  const std::pair<const char*, int> bits[] = {{"BOOL", 8}, {"F4", 4},      {"F6_E2M3", 6},     {"F6_E3M2", 6},     {"U8", 8},
                                              {"I8", 8},   {"F8_E5M2", 8}, {"F8_E4M3", 8},     {"F8_E8M0", 8},     {"I16", 16},
                                              {"U16", 16}, {"F16", 16},    {"F8_E4M3FNUZ", 8}, {"F8_E5M2FNUZ", 8}, {"BF16", 16},
                                              {"I32", 32}, {"U32", 32},    {"F32", 32},        {"C64", 64},        {"F64", 64},
                                              {"I64", 64}, {"U64", 64}};
  for (const auto& [name, n] : bits) {
    const SafetensorsHeader h = parse(file(entry(name, "[8]", cat("[0,", n, "]")), static_cast<std::size_t>(n)));
    CHECK(h.tensors.at(0).bytes == static_cast<u64>(n));
    CHECK(name_of(h.tensors.at(0).dtype) == name);
  }
}

TEST_CASE("safetensors: every truncation and every flipped bit is refused or harmless") {
  const std::string header =
      "{\"__metadata__\":{\"format\":\"pt\"}," + u8_tensor("a", 0, 4) + "," + u8_tensor("b.weight", 4, 9) + "}  ";
  const std::string good = file(header, 9);
  const auto survives = [](const std::string& bytes) {
    try {
      for (const TensorInfo& t : parse(bytes).tensors) {
        if (t.offset > bytes.size() || t.bytes > bytes.size() - t.offset) return false;
      }
    } catch (const Error& e) {
      return e.kind == ErrorKind::bad_input && !contains(e.message, "\n");
    }
    return true;
  };
  REQUIRE(parse(good).tensors.size() == 2);
  for (std::size_t n = 0; n < good.size(); ++n) {
    CAPTURE(n);
    CHECK(error_of([&] { parse(good.substr(0, n)); }) != "");
  }
  for (std::size_t i = 0; i < good.size(); ++i) {
    for (int value = 0; value < 256; ++value) {
      std::string bad = good;
      bad[i] = static_cast<char>(value);
      if (!survives(bad)) FAIL("byte " << i << " = " << value);
    }
  }
}

TEST_CASE("safetensors: what is written is read back") {
  const TempDir scratch;
  const Path path = scratch / "x.safetensors";
  const std::vector<TensorInfo> tensors = {{"u8", DType::u8, {3}},
                                           {"scalar", DType::bf16, {}},
                                           {"wide", DType::f64, {2, 1}},
                                           {"none", DType::i32, {0, 4}},
                                           {"w \"q\" é", DType::i32, {2, 2}}};
  const auto bytes_for = [](const TensorInfo& t) {
    std::vector<std::byte> bytes(t.bytes);
    for (std::size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<std::byte>(i * 7 + t.name.size());
    return bytes;
  };
  {
    SafetensorsWriter writer(path, tensors, {{"format", "pt"}, {"by", "test"}});
    std::vector<TensorInfo> order = writer.tensors();
    CHECK(order[0].name == "wide");  // widest first, then as given
    CHECK(order[1].name == "none");
    CHECK(order[2].name == "w \"q\" é");
    std::reverse(order.begin(), order.end());
    for (const TensorInfo& t : order) {
      CHECK(t.offset % static_cast<u64>(bytes_of(t.dtype)) == 0);
      const std::vector<std::byte> bytes = bytes_for(t);
      writer.write(t.name, std::span(bytes).first(bytes.size() / 3));
      writer.write(t.name, std::span(bytes).subspan(bytes.size() / 3));
      CHECK(contains(error_of([&] { SafetensorsFile{path}; }), "its length is 0; was the file written to the end?"));
    }
    writer.finish();
    CHECK(std::filesystem::file_size(path) == writer.file_size());
  }
  const SafetensorsFile file(path);
  CHECK(file.metadata() == Metadata{{"format", "pt"}, {"by", "test"}});
  REQUIRE(file.tensors().size() == tensors.size());
  CHECK(file.tensors()[0].offset % 8 == 0);
  for (const TensorInfo& t : file.tensors()) {
    const auto original = std::find_if(tensors.begin(), tensors.end(), [&](const TensorInfo& o) { return o.name == t.name; });
    REQUIRE(original != tensors.end());
    CHECK(original->dtype == t.dtype);
    CHECK(original->shape == t.shape);
    std::vector<std::byte> bytes(t.bytes);
    file.read(t, bytes);
    CHECK(bytes == bytes_for(t));
  }
  const TensorInfo& wide = file.tensors()[0];
  std::vector<std::byte> part(5);
  file.read_part(wide, 11, part);
  const std::vector<std::byte> whole = bytes_for(wide);
  CHECK(std::equal(part.begin(), part.end(), whole.begin() + 11));
  CHECK(contains(error_of(ErrorKind::bug, [&] { file.read_part(wide, 12, part); }), "has 16 bytes, 5 from 12 on are read"));
  CHECK(contains(error_of(ErrorKind::bug, [&] { file.read(wide, part); }), "has 16 bytes, the buffer 5"));
}

TEST_CASE("safetensors: a writer refuses what would not be readable") {
  const TempDir scratch;
  const Path path = scratch / "x.safetensors";
  const auto refused = [&](const std::vector<TensorInfo>& tensors) {
    const std::string error = error_of(ErrorKind::bug, [&] { SafetensorsWriter(path, tensors); });
    CHECK(!std::filesystem::exists(path));
    return error;
  };
  CHECK(contains(refused({{"a", DType::u8, {1}}, {"a", DType::f32, {1}}}), "\"a\" is there twice"));
  CHECK(contains(refused({{"", DType::u8, {1}}}), "the name is empty"));
  CHECK(contains(refused({{"__metadata__", DType::u8, {1}}}), "is there twice"));
  CHECK(contains(refused({{"a", DType::u8, {-1}}}), "overflows"));
  CHECK(contains(refused({{"a", DType::f4, {3}}}), "does not end on a byte"));
  CHECK(contains(refused({{"a", DType::dual, {1}}}), "unknown dtype"));

  SafetensorsWriter writer(path, {{"a", DType::u8, {2}}, {"b", DType::u8, {1}}});
  const std::byte two[2] = {};
  CHECK(contains(error_of(ErrorKind::bug, [&] { writer.write("c", two); }), "no tensor \"c\" was announced"));
  CHECK(contains(error_of(ErrorKind::bug, [&] { writer.write("b", two); }), "\"b\" has 1 bytes, 2 were given"));
  writer.write("a", two);
  CHECK(contains(error_of(ErrorKind::bug, [&] { writer.write("a", two); }), "\"a\" has 2 bytes, 4 were given"));
  CHECK(contains(error_of(ErrorKind::bug, [&] { writer.finish(); }), "\"b\" has 1 bytes, 0 were given"));
}

TEST_CASE("safetensors: errors of a file name it") {
  const TempDir scratch;
  const Path path = scratch / "x.safetensors";
  CHECK(error_of([&] { SafetensorsFile{path}; }) == path.string() + ": no such file");
  CHECK(contains(error_of([&] { SafetensorsFile{scratch.path}; }), "is a directory"));
  write_file(path, "abc");
  CHECK(error_of([&] { SafetensorsFile{path}; }) ==
        path.string() + ": header: the file has 3 bytes, too few for a safetensors file");
  write_file(path, file(entry("U8", "[8]", "[0,8]"), 7));
  CHECK(contains(error_of([&] { SafetensorsFile{path}; }),
                 path.string() + ": header: tensor \"t\": data_offsets [0,8] reach past"));

  write_file(path, file(entry("U8", "[8]", "[0,8]"), 8));
  const SafetensorsFile open(path);
  std::filesystem::resize_file(path, std::filesystem::file_size(path) - 3);  // cut while in use
  std::vector<std::byte> out(8);
  CHECK(contains(error_of(ErrorKind::io, [&] { open.read(open.tensors()[0], out); }), "3 more were expected"));
}
