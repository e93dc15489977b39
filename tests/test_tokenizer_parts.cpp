// Normalizers and Unigram by themselves. Expected results were checked with tokenizers 0.23.3.
#include <doctest/doctest.h>

#include "scratch.h"
#include "text/byte_trie.h"
#include "text/charsmap.h"
#include "text/grapheme.h"
#include "text/normalize.h"
#include "text/properties.h"
#include "text/tokenizer.h"

using namespace signround;

namespace {

std::string normalized(const std::string& json, std::string text) {
  const Json parsed = parse_json(json);
  make_normalizer(&parsed)(text);
  return text;
}

std::string named(const std::string& type, const std::string& text) { return normalized(cat(R"({"type":")", type, "\"}"), text); }

std::string ids(const Tokenizer& tokenizer, std::string_view text) {
  std::string shown;
  for (const i32 id : tokenizer.encode(text, false)) shown += cat(id, " ");
  return shown;
}

Tokenizer unigram(const std::string& members) { return Tokenizer(cat(R"({"model":{"type":"Unigram",)", members, "}}")); }

}  // namespace

TEST_CASE("normalizer: the four normal forms") {
  CHECK(named("NFC", "\u212B \u0958 \u1100\u1161 \u1E9B\u0323") == "\u00C5 \u0915\u093C \uAC00 \u1E9B\u0323");
  CHECK(named("NFC", "e\u0301 q\u0307\u0323 \uAC00\u11A8 \u0344 \u09C7\u09BE") == "é q\u0323\u0307 \uAC01 \u0308\u0301 \u09CB");
  CHECK(named("NFD", "é\uAC01\u1E69") == "e\u0301\u1100\u1161\u11A8s\u0323\u0307");
  CHECK(named("NFKC", "ﬁ①Ａ\u1E9B\u0323ｶﾞ\uFDFA").starts_with("fi1A\u1E69\u30AC\u0635"));
  CHECK(named("NFKD", "½é") == "1\u20442e\u0301");
  CHECK(named("NFC", "a\u0315\u0300\u05AE\u0300b") == "\u00E0\u05AE\u0300\u0315b");  // marks by class, then composed
  for (const char* form : {"NFC", "NFD", "NFKC", "NFKD"}) {
    CHECK(named(form, "") == "");
    CHECK(named(form, "plain ASCII\n") == "plain ASCII\n");
  }
}

TEST_CASE("normalizer: a million combining marks take no stack and little time") {
  std::string marks = "a";
  for (int i = 0; i < 500000; ++i) marks += i % 2 ? "\u0301" : "\u0323";
  const std::string ordered = named("NFC", marks);
  CHECK(ordered.starts_with("\u1EA1\u0323"));
  CHECK(ordered.ends_with("\u0301"));
}

TEST_CASE("normalizer: what changes or removes single characters") {
  CHECK(named("Lowercase", "ÀΣİǅA") == "àσi\u0307ǆa");
  CHECK(named("StripAccents", "e\u0301éक\u0903") == "eéक");
  CHECK(named("Nmt", "\x01\ta\u200Bb\u2581\x7F") == " a b ");
  CHECK(named("ByteLevel", "é ") == "Ã©Ġ");
  const std::string strip = R"({"type":"Strip","strip_left":true,"strip_right":false})";
  CHECK(normalized(strip, "\u3000 a ") == "a ");
  CHECK(normalized(strip, " \n") == "");
  CHECK(normalized(R"({"type":"Strip","strip_left":false,"strip_right":true})", " a\u0085 ") == " a");
}

TEST_CASE("normalizer: Metaspace's first piece is one whose beginning no normalizer has removed") {
  const auto tokens = [](std::string_view normalizer, std::string_view text) {
    const std::string model = R"("model":{"type":"Unigram","unk_id":0,"vocab":[["?",0],["a",-1],["▁",-1]]})";
    const std::string metaspace = R"("pre_tokenizer":{"type":"Metaspace","replacement":"▁","prepend_scheme":"first"})";
    return ids(Tokenizer(cat("{", model, ",", metaspace, ",\"normalizer\":", normalizer, "}")), text);
  };
  CHECK(tokens("null", "a") == "2 1 ");
  CHECK(tokens(R"({"type":"Nmt"})", "\x01" "a") == "1 ");
  CHECK(tokens(R"({"type":"Strip","strip_left":true,"strip_right":true})", " a") == "1 ");
  CHECK(tokens(R"({"type":"Strip","strip_left":true,"strip_right":true})", "a ") == "2 1 ");
  CHECK(tokens(R"({"type":"Replace","pattern":{"String":"-"},"content":""})", "-a") == "1 ");
  CHECK(tokens(R"({"type":"Replace","pattern":{"String":"-"},"content":"a"})", "-a") == "2 1 1 ");
  CHECK(tokens(R"({"type":"Sequence","normalizers":[{"type":"StripAccents"},{"type":"NFC"}]})", "\u0301a") == "1 ");
}

TEST_CASE("normalizer: a damaged character map is refused, and so is one that leads out of itself") {
  CHECK(contains(error_of([] { Charsmap(""); }), "cut short"));
  CHECK(contains(error_of([] { Charsmap("AA"); }), "base64 of 2 characters"));
  CHECK(contains(error_of([] { Charsmap("AA!A"); }), "character 2 is not base64"));
  CHECK(contains(error_of([] { Charsmap("CAAAAAAAAAA="); }), "an array of 8 bytes in 4"));
  CHECK(contains(error_of([] { Charsmap("AAAAAAAAAAA="); }), "an array of 0 bytes in 4"));
  CHECK(contains(error_of([] { Charsmap("BAAAAAAAAAD/"); }), "not UTF-8"));
  CHECK(contains(error_of([] {
                   std::string text = "a";
                   Charsmap("BAAAAAAAAAA=").apply(text);
                 }),
                 "no unit 97 among 1"));
  const std::string none = R"({"type":"Precompiled","precompiled_charsmap":null})";
  CHECK(contains(error_of([&] { normalized(none, ""); }), "precompiled_charsmap"));
}

TEST_CASE("graphemes: what is seen as one character") {
  const auto ends = [](std::string_view text) {
    std::string shown;
    for (size_t at = 0; at < text.size();) shown += cat(at = grapheme_end(text, at), " ");
    return shown;
  };
  CHECK(ends("ab\r\n\n") == "1 2 4 5 ");
  CHECK(ends("a\u0301\u0300b\x01\u0301") == "5 6 7 9 ");
  CHECK(ends("\u1100\u1161\u11A8\uAC00\u11A8\uAC01\u1161") == "9 15 18 21 ");
  CHECK(ends("\u0600a\u0600\n") == "3 5 6 ");
  CHECK(ends("\u00A9\u200D\u00A9a\u200D\u00A9") == "7 11 13 ");
}

TEST_CASE("unigram: the best path, unknown characters in one, bytes, and ties") {
  const std::string vocab =
      R"("vocab":[["<unk>",0],["a",-1],["b",-2],["ab",-2.5],["aa",-2],["<0xC3>",-9],["<0xA9>",-9],["xé",-9]])";
  CHECK(ids(unigram("\"unk_id\":0," + vocab), "abab") == "3 3 ");
  CHECK(ids(unigram("\"unk_id\":0," + vocab), "aaa") == "1 4 ");  // as good as "aa a": of equals the first counts
  CHECK(ids(unigram("\"unk_id\":0," + vocab), "axyéb") == "1 0 2 ");
  CHECK(ids(unigram("\"unk_id\":0," + vocab), "a<unk>yb") == "1 0 2 ");
  CHECK(ids(unigram("\"unk_id\":0,\"byte_fallback\":true," + vocab), "aéxéyéb") == "1 5 6 7 0 2 ");
  CHECK(ids(unigram("\"unk_id\":0,\"byte_fallback\":true," + vocab), "aébx") == "1 5 6 2 0 ");
  CHECK(ids(unigram(vocab), "ab") == "3 ");
  CHECK(ids(Tokenizer(cat(R"({"model":{"unk_id":0,)", vocab, "}}")), "ab") == "3 ");  // without a type
  // Zeros with any exponent, and more digits than 64 bits hold.
  CHECK(ids(unigram(R"("vocab":[["a",0e999],["b",-0.0e-99999999999999999999],["ab",-1e-300]])"), "ab") == "0 1 ");
  CHECK(ids(unigram(R"("vocab":[["a",-1e300],["b",-1e300],["ab",-123456789012345678901234567890e270]])"), "ab") == "2 ");
  CHECK(contains(error_of([&] { ids(unigram(vocab), "ax"); }), "no token for \"x\""));
  CHECK(contains(error_of([&] { unigram("\"unk_id\":8," + vocab); }), "unk_id 8 is not in the vocabulary"));
  CHECK(contains(error_of([&] { unigram(R"("vocab":[["a"]])"); }), "expected a token and its score, found 1"));
  CHECK(contains(error_of([&] { unigram(R"("vocab":[["a","b"]])"); }), "model: "));
  CHECK(contains(error_of([&] { unigram(R"("vocab":[["a",0],["a",0]])"); }), "is there twice"));
}

TEST_CASE("byte trie: all keys that a text begins with") {
  const ByteTrie trie({{"ab", 0}, {"a", 1}, {"", 2}, {"abc\xFF", 3}, {"b", 4}, {"a", 5}});
  CHECK(trie.value(ByteTrie::kRoot) == 2);
  u32 node = trie.next(ByteTrie::kRoot, 'a');
  CHECK(trie.value(node) == 1);  // the first of the same keys
  node = trie.next(node, 'b');
  CHECK(trie.value(node) == 0);
  CHECK(trie.value(node = trie.next(node, 'c')) == -1);
  CHECK(trie.next(node, 'a') == ByteTrie::kNone);
  CHECK(trie.value(trie.next(node, '\xFF')) == 3);
  CHECK(ByteTrie().empty());
}

TEST_CASE("properties: categories and scripts by name") {
  CHECK(code_points_with("Lu") == code_points_of("Lu"));
  CHECK(code_points_with("Uppercase_Letter") == code_points_of("Lu"));
  CHECK(code_points_with("p") == code_points_of("P"));
  CHECK(code_points_with("hAn").contains(U'漢'));
  CHECK(code_points_with("old-italic").contains(0x10300));
  CHECK(code_points_with("").ranges().empty());
  CHECK(code_points_with("Elvish").ranges().empty());
}
