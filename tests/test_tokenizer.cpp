// Ids are those of tokenizers 0.23.3, stored by tests/data/tokenizers/make.py.
#include "text/tokenizer.h"

#include <doctest/doctest.h>

#include <chrono>

#include "base/rng.h"
#include "model/tokens.h"
#include "scratch.h"
#include "text/unicode.h"

using namespace signround;

namespace {

using Ids = std::vector<i32>;
const Path kData = "tests/data/tokenizers";
constexpr u64 kMaxBytes = u64{1} << 24;

std::string fixture(const std::string& name) { return read_file(kData / (name + ".json"), kMaxBytes); }
const Json& golden() {
  static const Json json = parse_json(fixture("golden"));
  return json;
}

// FNV-1a over the ids or bytes and a separator after each text, a word at a time.
class Hash {
 public:
  void add(const Ids& ids) {
    for (const i32 id : ids) add_word(static_cast<u32>(id));
    add_word(0xFFFFFFFFu);
  }
  void add(std::string_view text) {
    for (const char c : text) add_word(static_cast<u8>(c));
    add_word(0xFFFFFFFFu);
  }
  i64 value() const { return hash_; }

 private:
  void add_word(u32 word) { hash_ = (hash_ ^ word) * 16777619u; }
  u32 hash_ = 2166136261u;
};

// Groups of texts, the same as in make.py: all pairs of ASCII characters, code points among ASCII, all code points once, and
// random fragments.
std::vector<std::vector<std::string>> groups() {
  std::vector<std::vector<std::string>> all;
  for (int a = 0; a < 128; ++a) {
    all.emplace_back();
    for (int b = 0; b < 128; ++b) all.back().push_back({static_cast<char>(a), static_cast<char>(b)});
  }
  std::vector<std::string> texts;
  for (char32_t c = 0; c < 0x30000; c += 7) {
    const std::string s = utf8(c);
    if (c < 0xD800 || c > 0xDFFF) texts.push_back(cat("a", s, "1", s, s, " ", s, ".", s));
  }
  for (size_t i = 0; i < texts.size(); i += 512) {
    all.emplace_back(texts.begin() + static_cast<std::ptrdiff_t>(i),
                     texts.begin() + static_cast<std::ptrdiff_t>(std::min(i + 512, texts.size())));
  }
  std::string line;
  std::vector<std::string> lines;
  for (char32_t c = 0, count = 0; c <= kMaxCodePoint; ++c) {
    if (c >= 0xD800 && c <= 0xDFFF) continue;
    append_utf8(line, c);
    if (++count % 256 && c < kMaxCodePoint) continue;
    lines.push_back(std::move(line));
    line.clear();
  }
  for (size_t i = 0; i < lines.size(); i += 512) {
    all.emplace_back(lines.begin() + static_cast<std::ptrdiff_t>(i),
                     lines.begin() + static_cast<std::ptrdiff_t>(std::min(i + 512, lines.size())));
  }
  const Json::Array& fragments = golden().array("fragments");
  PythonRandom random(20);
  for (int group = 0; group < 40; ++group) {
    all.emplace_back();
    for (int i = 0; i < 50; ++i) {
      std::string text;
      for (u64 left = 1 + random.below(12); left > 0; --left) text += fragments[random.below(fragments.size())].string();
      all.back().push_back(std::move(text));
    }
  }
  return all;
}

std::string shown(const Ids& ids) {
  std::string s;
  for (const i32 id : ids) s += cat(id, " ");
  return s;
}

// A tokenizer.json with these members beside or in place of the plainest ones.
struct Sketch {
  Json root = parse_json(R"({"added_tokens":[],"model":{"type":"BPE","vocab":{"a":0,"b":1,"<x>":2},"merges":[]}})");

  Sketch& set(std::string_view key, std::string_view value) {
    root.set(key, parse_json(value));
    return *this;
  }
  Sketch& model(std::string_view key, std::string_view value) {
    Json changed = root.at("model");
    changed.set(key, parse_json(value));
    root.set("model", std::move(changed));
    return *this;
  }
  Sketch& added(i64 id, std::string_view content, std::string_view flag = "") {
    Json tokens = root.at("added_tokens");
    Json token = Json::object({{"id", id}, {"content", content}});
    for (const std::string_view name : {"single_word", "lstrip", "rstrip", "normalized", "special"}) {
      token.set(name, name == flag);
    }
    tokens.push(std::move(token));
    root.set("added_tokens", std::move(tokens));
    return *this;
  }
  Tokenizer make(std::string_view config = {}) const { return Tokenizer(to_text(root), config); }
  std::string ids(std::string_view text) const { return shown(make().encode(text, false)); }
  std::string error() const { return error_of([&] { make(); }); }
};

}  // namespace

TEST_CASE("tokenizer: ids and text equal those of the tokenizers library") {
  const std::vector<std::vector<std::string>> all = groups();
  for (const JsonMember& entry : golden().object("tokenizers")) {
    const std::string& name = entry.key;
    const Json& expected = entry.value;
    CAPTURE(name);
    const Tokenizer tokenizer(fixture(name));
    CHECK(tokenizer.vocab_size() == expected.integer("size"));
    const Json::Array& texts = golden().array("texts");
    for (size_t i = 0; i < texts.size(); ++i) {
      CAPTURE(texts[i].string());
      Ids ids;
      for (const Json& id : expected.array("ids")[i].array()) ids.push_back(static_cast<i32>(id.integer()));
      CHECK(shown(tokenizer.encode(texts[i].string(), true)) == shown(ids));
      CHECK(tokenizer.decode(ids, true) == expected.array("decoded")[i].string());
    }
    const Json::Array& hashes = expected.array("groups");
    REQUIRE(hashes.size() == all.size());
    for (size_t i = 0; i < all.size(); ++i) {
      CAPTURE(i);
      Hash hash, decoded;
      for (const std::string& text : all[i]) {
        const Ids ids = tokenizer.encode(text, true);
        hash.add(ids);
        decoded.add(tokenizer.decode(ids, true));
      }
      CHECK(hash.value() == hashes[i].integer());
      CHECK(decoded.value() == expected.array("decoded_groups")[i].integer());
    }
  }
}

TEST_CASE("tokenizer: a run of a million equal characters takes no stack and linear time") {
  for (const JsonMember& entry : golden().object("tokenizers")) {
    const std::string& name = entry.key;
    const Json& expected = entry.value;
    CAPTURE(name);
    const Tokenizer tokenizer(fixture(name));
    const Json::Array& runs = expected.array("runs");  // of some tokenizers only
    for (size_t i = 0; i < runs.size(); ++i) {
      const auto start = std::chrono::steady_clock::now();
      Hash hash;
      hash.add(tokenizer.encode(std::string(1000000, "A \n1!"[i]), true));
      CHECK(hash.value() == runs[i].integer());
      // Under the sanitizers too; anything quadratic takes minutes.
      CHECK(std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count() < 20);
    }
  }
}

TEST_CASE("tokenizer: decoding gives the text back") {
  for (const JsonMember& entry : golden().object("tokenizers")) {
    const std::string& name = entry.key;
    const Tokenizer tokenizer(fixture(name));
    for (const Json& text : golden().array("texts")) {
      const bool strips = contains(text.string(), "<l>") || contains(text.string(), "<r>") || contains(text.string(), "<N>");
      const bool changes = name == "prefix" || !parse_json(fixture(name)).at("normalizer").is_null();
      const bool byte_level = contains(fixture(name), "ByteLevel") && !changes;
      if (strips || !byte_level) continue;  // white space or unknown characters are not kept
      CHECK(tokenizer.decode(tokenizer.encode(text.string(), false), false) == text.string());
    }
  }
}

TEST_CASE("tokenizer: merges by rank, the leftmost first, in both spellings") {
  Sketch s;
  s.model("vocab", R"({"a":0,"aa":1,"aaaa":2})").model("merges", R"(["a a","aa aa"])");
  CHECK(s.ids("aaaaaaa") == "2 1 0 ");
  CHECK(s.model("merges", R"([["a","a"],["aa","aa"]])").ids("aaaaaaa") == "2 1 0 ");
  s.model("vocab", R"({"a":0,"b":1,"ab":2,"aba":3,"ba":4})").model("merges", R"(["a b","b a","a b"])");
  CHECK(s.ids("aba") == "0 4 ");  // of a pair given twice the later rank counts
  s.model("vocab", R"({"a":0," ":1,"a ":2,"a a":3})").model("merges", R"([["a"," "],["a ","a"]])");
  CHECK(s.ids("a a") == "3 ");
  CHECK(contains(s.model("merges", R"(["a  a"])").error(), "tokenizer.json: model: merge 0: expected two tokens and one space"));
  CHECK(contains(s.model("merges", R"([["a"]])").error(), "expected two tokens, found 1"));
  CHECK(contains(s.model("merges", R"(["a c"])").error(), "\"c\" is not in the vocabulary"));
  CHECK(contains(s.model("merges", R"(["a a"])").error(), "\"aa\" is not in the vocabulary"));
}

TEST_CASE("tokenizer: characters that the vocabulary lacks") {
  Sketch s;
  s.model("vocab", R"({"a":0,"b":1,"##b":2,"b</w>":3,"<0xC3>":4,"<0xA9>":5,"ab":6})").model("merges", R"(["a b"])");
  CHECK(s.ids("abxyéb") == "6 1 ");
  CHECK(s.model("unk_token", "\"a\"").ids("abxyéb") == "6 0 0 6 ");
  CHECK(s.model("byte_fallback", "true").ids("abxyéb") == "6 0 4 5 6 ");
  CHECK(s.model("byte_fallback", "false").model("fuse_unk", "true").ids("abxyéb") == "6 6 ");
  CHECK(s.model("fuse_unk", "false").model("end_of_word_suffix", "\"</w>\"").ids("abxyéb") == "6 0 0 0 3 ");
  s.model("end_of_word_suffix", "null").model("unk_token", "null").model("continuing_subword_prefix", "\"##\"");
  CHECK(s.model("merges", R"(["a ##b"])").ids("abxyéb") == "6 2 ");
  CHECK(contains(s.model("merges", R"(["a b"])").error(), "\"b\" is shorter than continuing_subword_prefix"));
  CHECK(contains(s.model("unk_token", "\"zz\"").error(), "unk_token \"zz\" is not in the vocabulary"));
}

TEST_CASE("tokenizer: dropout must be off, the type may be missing, truncation and padding are ignored") {
  Sketch s;
  CHECK(s.model("dropout", "0.0").ids("ab") == "0 1 ");
  CHECK(contains(s.model("dropout", "0.5").error(), "dropout"));
  s.model("dropout", "null").set("truncation", R"({"max_length":1})").set("padding", R"({"length":9})");
  s.root.set("model", parse_json(R"({"vocab":{"a":0,"b":1},"merges":[]})"));
  CHECK(s.ids("ab") == "0 1 ");
}

TEST_CASE("tokenizer: the id of an added token is the vocabulary's or the next free one, not the file's") {
  CHECK(Sketch().added(9, "<x>").ids("a<x>b") == "0 2 1 ");
  CHECK(Sketch().added(100, "<y>").added(50, "<z>").ids("a<z><y>") == "0 4 3 ");
  CHECK(Sketch().added(0, "<y>").ids("a<y>") == "0 3 ");
  CHECK(Sketch().added(3, "").added(4, "<y>").ids("a<y>") == "0 3 ");
  CHECK(Sketch().added(3, "<y>").added(4, "<y>", "lstrip").ids("a <y>") == "0 3 ");
  const Tokenizer gap = Sketch().model("vocab", R"({"a":0,"b":7})").added(5, "<y>").added(7, "b").added(1, "<z>").make();
  CHECK(shown(gap.encode("a<y>b<z>", false)) == "0 2 7 8 ");
  CHECK(gap.vocab_size() == 9);
  CHECK(gap.find("<z>") == 8);
  CHECK(gap.find("b") == 7);
  CHECK_FALSE(gap.find("c"));
}

TEST_CASE("tokenizer: what goes around a text") {
  const std::string bos = R"({"type":"TemplateProcessing","single":[{"SpecialToken":{"id":"<x>","type_id":0}},)"
                          R"({"Sequence":{"id":"A","type_id":0}}],"special_tokens":{"<x>":{"id":"<x>","ids":[2]}}})";
  const auto around = [](const Sketch& s, std::string_view config) { return shown(s.make(config).encode("a", true)); };
  Sketch plain, with_bos, roberta;
  with_bos.set("post_processor", cat(R"({"type":"Sequence","processors":[{"type":"ByteLevel"},)", bos, "]}"));
  roberta.set("post_processor", R"({"type":"RobertaProcessing","cls":["<x>",2],"sep":["b",1]})");
  CHECK(around(plain, "") == "0 ");
  CHECK(around(with_bos, "") == "2 0 ");
  CHECK(around(roberta, "") == "2 0 1 ");
  CHECK(with_bos.ids("a") == "0 ");
  // tokenizer_config.json, where it says something, decides.
  CHECK(around(plain, R"({"bos_token":"<x>","eos_token":"b"})") == "0 ");
  CHECK(around(plain, R"({"bos_token":"<x>","add_bos_token":true})") == "2 0 ");
  CHECK(around(plain, R"({"bos_token":{"content":"<x>"},"add_bos_token":true})") == "2 0 ");
  CHECK(around(with_bos, R"({"bos_token":"<x>","add_bos_token":true})") == "2 0 ");
  CHECK(around(with_bos, R"({"bos_token":"<x>","add_bos_token":false})") == "0 ");
  CHECK(around(with_bos, R"({"bos_token":null,"add_bos_token":null,"eos_token":"b","add_eos_token":true})") == "2 0 1 ");
  CHECK(around(roberta, R"({"eos_token":"b","add_eos_token":false})") == "2 0 ");
  const Tokenizer named = plain.make(R"({"bos_token":"<x>","eos_token":"nowhere"})");
  CHECK(named.special().bos == 2);
  CHECK_FALSE(named.special().eos);
  CHECK(around(plain, R"({"add_bos_token":true,"add_eos_token":true,"eos_token":null})") == "0 ");  // there is none to add
  for (const char* key : {"bos", "eos"})
    CHECK(contains(error_of([&] { plain.make(cat(R"({"add_)", key, R"(_token":true,")", key, R"(_token":"nowhere"})")); }),
                   cat("tokenizer_config.json: add_", key, "_token is true, but ", key, "_token names no known token")));
  CHECK(contains(error_of([&] { plain.make("{"); }), "tokenizer_config.json: "));
  Sketch twice, other;
  twice.set("post_processor", cat(R"({"type":"Sequence","processors":[)", bos, ",", bos, "]}"));
  CHECK(contains(twice.error(), "more than one post_processor"));
  roberta.set("post_processor", R"({"type":"RobertaProcessing","cls":["<x>",3],"sep":["b",1]})");
  CHECK(contains(roberta.error(), "tokenizer.json: post_processor: no token has the id 3"));
  CHECK(contains(other.set("post_processor", R"({"type":"Other"})").error(), "post_processor \"Other\" is not supported"));
}

TEST_CASE("tokenizer: decoding") {
  Sketch s;
  s.model("vocab", R"({"Ã":0,"©":1,"a":2,"日":3,"Ġ":4})").set("decoder", R"({"type":"ByteLevel"})");
  const Tokenizer t = s.added(5, "<s>", "special").added(6, " é").make();
  const auto text = [&](Ids ids, bool skip_special = true) { return t.decode(ids, skip_special); };
  CHECK(text({0, 1}) == "é");
  CHECK(text({0, 2}) == "\uFFFDa");
  CHECK(text({1}) == "\uFFFD");
  CHECK(text({0, 3}) == "\uFFFD日");  // a token that is not in the byte-level alphabet
  CHECK(text({2, 4, 6}) == "a  é");
  CHECK(text({2, 5, 2}) == "aa");
  CHECK(text({2, 5, 2}, false) == "a<s>a");
  CHECK(text({2, 1000, -1, 2}) == "aa");
  CHECK(text({}) == "");
  CHECK(Sketch().make().decode(Ids{0, 1}, true) == "a b");  // without a decoder
}

TEST_CASE("tokenizer: decoders of SentencePiece's ways") {
  const auto decoded = [](std::string_view decoder) {
    Sketch s;
    s.model("vocab", R"({"▁":0,"a":1,"▁a":2,"<0xE2>":3,"<0x82>":4,"<0xAC>":5,"<0x41>":6,"b ":7,"<0xzz>":8})");
    const Tokenizer t = s.set("decoder", decoder).make();
    std::vector<std::string> texts;
    const std::vector<Ids> rows = {{2, 2},    {0, 1},          {3, 4, 5}, {3, 4}, {3, 4, 6},
                                   {6, 1, 6}, {3, 4, 5, 3, 1}, {7, 7},    {8, 1}, {0, 0, 1}};
    for (const Ids& ids : rows) texts.push_back(t.decode(ids, true));
    return texts;
  };
  using Texts = std::vector<std::string>;
  const std::string u = "\uFFFD", uu = u + u, uuu = uu + u;
  const std::string replace = R"({"type":"Replace","pattern":{"String":"▁"},"content":" "})";
  CHECK(decoded(cat(R"({"type":"Sequence","decoders":[)", replace, R"(,{"type":"ByteFallback"},{"type":"Fuse"},)",
                    R"({"type":"Strip","content":" ","start":1,"stop":0}]})")) ==
        Texts{"a a", "a", "€", uu, uuu, "AaA", uuu + u + "a", "b b ", "<0xzz>a", " a"});
  CHECK(decoded(R"({"type":"ByteFallback"})") ==
        Texts{"▁a▁a", "▁a", "€", uu, uuu, "AaA", uuu + u + "a", "b b ", "<0xzz>a", "▁▁a"});
  const Texts bytes = {"<0xE2><0x82><0xAC>", "<0xE2><0x82>", "<0xE2><0x82><0x41>", "<0x41>a<0x41>", "<0xE2><0x82><0xAC><0xE2>a",
                       "b b ", "<0xzz>a"};
  const auto with_bytes = [&](Texts first, const std::string& last) {
    first.insert(first.end(), bytes.begin(), bytes.end());
    first.push_back(last);
    return first;
  };
  CHECK(decoded(R"({"type":"Metaspace","replacement":"▁","prepend_scheme":"always"})") == with_bytes({"a a", "a"}, " a"));
  CHECK(decoded(R"({"type":"Metaspace","replacement":"▁","prepend_scheme":"never"})") == with_bytes({" a a", " a"}, "  a"));
  CHECK(decoded(cat(R"({"type":"Sequence","decoders":[)", replace, R"(,{"type":"Strip","content":" ","start":5,"stop":0}]})")) ==
        with_bytes({"aa", "a"}, "a"));
}

TEST_CASE("tokenizer: Metaspace and prepended spaces are for each piece, or for the first") {
  const auto tokens = [](Sketch s, std::string_view pre_tokenizer, std::string_view text) {
    s.model("vocab", R"({"a":0,"b":1,"▁":2," ":3,"h":4,"i":5})").added(0, "<s>");
    return s.set("pre_tokenizer", pre_tokenizer).ids(text);
  };
  const std::string always = R"({"type":"Metaspace","replacement":"▁","add_prefix_space":true})";
  const std::string first = R"({"type":"Metaspace","replacement":"▁","prepend_scheme":"first","split":false})";
  const std::string never = R"({"type":"Metaspace","replacement":"▁","prepend_scheme":"never","add_prefix_space":false})";
  CHECK(tokens({}, always, "a b<s>a") == "2 0 2 1 6 2 0 ");
  CHECK(tokens({}, always, "<s> a") == "6 2 0 ");
  CHECK(tokens({}, first, "a b<s>a") == "2 0 2 1 6 0 ");
  CHECK(tokens({}, first, "<s>a▁") == "6 0 2 ");
  CHECK(tokens({}, never, "a b<s>a") == "0 2 1 6 0 ");
  // The piece that begins the text may be gone before Metaspace sees it.
  const std::string dashes = R"({"type":"Split","pattern":{"String":"-"},"behavior":"Removed","invert":false})";
  const std::string both = cat(R"({"type":"Sequence","pretokenizers":[)", dashes, ",", first, "]}");
  CHECK(tokens({}, both, "-ab-a") == "0 1 0 ");
  CHECK(tokens({}, both, "a-b a") == "2 0 1 2 0 ");
  CHECK(tokens({}, both, "--") == "");

  Sketch llama2;
  llama2.set("normalizer", R"({"type":"Sequence","normalizers":[{"type":"Prepend","prepend":"▁"},)"
                           R"({"type":"Replace","pattern":{"String":" "},"content":"▁"}]})");
  CHECK(tokens(llama2, "null", "hi<s>hi") == "2 4 5 6 2 4 5 ");
  CHECK(tokens(llama2, "null", " hi") == "2 2 4 5 ");
  CHECK(tokens(llama2, "null", "") == "");
  Sketch squeezed;
  squeezed.set("normalizer", R"({"type":"Replace","pattern":{"Regex":"\\s+"},"content":"▁"})");
  CHECK(tokens(squeezed, "null", "\n a\t b<s> ") == "2 0 2 1 6 2 ");
  const auto error = [&](std::string_view json) { return Sketch().set("pre_tokenizer", json).error(); };
  CHECK(contains(error(R"({"type":"Metaspace","replacement":"ab"})"), "is not one character"));
  CHECK(contains(error(R"({"type":"Metaspace","replacement":""})"), "is not one character"));
  CHECK(contains(error(R"({"type":"Metaspace","replacement":"▁","prepend_scheme":"last"})"), "unknown prepend_scheme"));
  CHECK(contains(error(R"({"type":"Metaspace","replacement":"▁","add_prefix_space":false})"), "add_prefix_space is false"));
}

TEST_CASE("tokenizer: what is damaged or not supported is refused, with the place or the way around it") {
  for (const std::string_view part : {"normalizer", "pre_tokenizer", "decoder"}) {
    const std::string message = Sketch().set(part, R"({"type":"Unheard"})").error();
    CHECK(contains(message, cat(part, " \"Unheard\" is not supported; give token ids with --ids")));
  }
  const std::string word_piece = Sketch().model("type", "\"WordPiece\"").error();
  CHECK(contains(word_piece, "type \"WordPiece\" is not supported; give token ids with --ids"));
  CHECK(contains(Sketch().model("vocab", R"({"a":-1})").error(), "id -1"));
  CHECK(contains(Sketch().model("vocab", R"({"a":99999999})").error(), "id 99999999"));
  CHECK(contains(Sketch().model("vocab", R"({"a":0,"b":0})").error(), "have the same id 0"));
  CHECK(contains(Sketch().model("vocab", "[]").error(), "vocab"));
  CHECK(contains(Sketch().set("pre_tokenizer", R"({"type":"ByteLevel"})").error(), "add_prefix_space"));
  const Tokenizer t = Sketch().make();
  CHECK(contains(error_of([&] { t.encode("ab\xFF", false); }), "byte 2 of the text is not UTF-8"));
}

TEST_CASE("tokenizer: every beginning of a good file fails cleanly") {
  const std::string text = fixture("llama3");
  for (size_t n = 0; n + 2 < text.size(); n += 7) {
    CHECK(!error_of([&] { Tokenizer(std::string_view(text).substr(0, n)); }).empty());
  }
}

TEST_CASE("tokenizer: a folder without tokenizer.json is told what to do") {
  const TempDir dir;
  const auto answer = [&] { return error_of([&] { read_tokenizer(dir.path.string()); }); };
  CHECK(contains(answer(), "has no tokenizer.json; give token ids with --ids"));
  write_file(dir.path / "vocab.json", "{}");
  CHECK(contains(answer(), "only vocab.json"));
  std::filesystem::remove(dir.path / "vocab.json");
  write_file(dir.path / "tokenizer.model", "");
  CHECK(contains(answer(), "only tokenizer.model (SentencePiece); give token ids with --ids"));
}
