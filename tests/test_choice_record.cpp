// Choices that are kept from run to run: found again, first come first kept, and no harm from files that are something else.
#include <doctest/doctest.h>

#include <optional>

#include "io/choice_record.h"
#include "scratch.h"
#include "testing.h"

using namespace signround;

namespace {

const std::string* at(const ChoiceRecord& record, const char* what) { return record.find(what); }
constexpr u64 kLimit = 1 << 20;

}  // namespace

TEST_CASE("choice record: what is settled is found by the next run") {
  const TempDir dir;
  const Path path = dir / "a" / "b" / "plans";  // folders are made
  ChoiceRecord first(path);
  CHECK(first.keeps());
  CHECK(at(first, "x") == nullptr);
  REQUIRE(first.settle("x", "1 2 3") != nullptr);
  CHECK(*first.settle("y z", "4") == "4");
  CHECK(*at(first, "x") == "1 2 3");
  const ChoiceRecord second(path);
  REQUIRE(at(second, "y z") != nullptr);
  CHECK(*at(second, "y z") == "4");
  CHECK(*at(second, "x") == "1 2 3");
}

TEST_CASE("choice record: of two processes the first to settle decides for both, and neither's choices are lost") {
  const TempDir dir;
  ChoiceRecord one(dir / "plans"), other(dir / "plans");
  CHECK(*one.settle("x", "1") == "1");
  CHECK(*other.settle("x", "2") == "1");
  CHECK(*other.settle("y", "3") == "3");
  CHECK(*one.settle("z", "4") == "4");
  const ChoiceRecord next(dir / "plans");
  for (const auto& [what, how] : {std::pair{"x", "1"}, {"y", "3"}, {"z", "4"}}) {
    REQUIRE(at(next, what) != nullptr);
    CHECK(*at(next, what) == how);
  }
}

TEST_CASE("choice record: a file that is something else is neither used nor touched; broken lines are passed over") {
  const TempDir dir;
  const Path path = dir / "plans";
  for (const char* text : {"a letter\nto\tsomeone\n", "\n", "\xff\x00\x01"}) {
    write_file(path, text);
    ChoiceRecord record(path);
    CHECK(!record.keeps());
    CHECK(contains(record.trouble(), path.string()));
    CHECK(record.settle("x", "1") == nullptr);
    CHECK(read_file(path, kLimit) == text);
  }
  write_file(path, "");  // a machine that stopped while it was written
  CHECK(*ChoiceRecord(path).settle("x", "1") == "1");
  const std::string good = read_file(path, kLimit);
  for (const char* broken : {"no tab\n", "\t\n", "\thow\n", "what\t\n", "a\tb\tc\n", "\n", "cut off\t"}) {
    write_file(path, good + broken);
    ChoiceRecord record(path);
    CHECK(record.keeps());
    REQUIRE(at(record, "x") != nullptr);
    for (const char* what : {"no tab", "what", "a", "cut off", ""}) CHECK(at(record, what) == nullptr);
    CHECK(*record.settle("y", "2") == "2");
    CHECK(ChoiceRecord(path).keeps());
  }
  for (size_t size = 0; size < good.size(); ++size) {  // a file cut off anywhere
    write_file(path, good.substr(0, size));
    const ChoiceRecord record(path);
    CHECK((!record.keeps() || record.trouble().empty()));
  }
}

TEST_CASE("choice record: where nothing can be written nothing is kept, and that is no error") {
  const TempDir dir;
  write_file(dir / "file", "");
  ChoiceRecord blocked(dir / "file" / "plans");
  CHECK(blocked.settle("x", "1") == nullptr);
  CHECK(!blocked.trouble().empty());
  CHECK(!blocked.keeps());
  CHECK(blocked.settle("x", "1") == nullptr);
  ChoiceRecord folder(dir.path);
  CHECK(!folder.keeps());
  ChoiceRecord none(Path{});
  CHECK(!none.keeps());
  CHECK(none.trouble().empty());
  CHECK(none.settle("x", "1") == nullptr);
}

TEST_CASE("choice record: where plans are kept") {
  const auto with = [](const char* plans, const char* cache, const char* home) {
    const std::pair<const char*, const char*> variables[] = {
        {"SIGNROUND_PLANS", plans}, {"XDG_CACHE_HOME", cache}, {"HOME", home}};
    std::vector<std::optional<std::string>> before;
    for (const auto& [name, value] : variables) {
      const char* old = std::getenv(name);
      before.push_back(old ? std::optional<std::string>(old) : std::nullopt);
      if (value) ::setenv(name, value, 1);
      else ::unsetenv(name);
    }
    const Path path = plans_path();
    for (size_t i = 0; i < before.size(); ++i) {
      if (before[i]) ::setenv(variables[i].first, before[i]->c_str(), 1);
      else ::unsetenv(variables[i].first);
    }
    return path;
  };
  CHECK(with("p", "c", "h") == Path("p"));
  CHECK(with("", "c", "h").empty());
  CHECK(with(nullptr, "/c", "/h") == Path("/c/signround/plans"));
  CHECK(with(nullptr, "", "/h") == Path("/h/.cache/signround/plans"));
  CHECK(with(nullptr, nullptr, nullptr).empty());
}
