// Every expected number was printed by CPython 3.11's module `random`.
#include <doctest/doctest.h>

#include <numeric>
#include <vector>

#include "base/rng.h"

using namespace signround;

namespace {

std::vector<u64> first_words(i64 seed) {
  PythonRandom random(seed);
  return {random.bits(32), random.bits(32), random.bits(32), random.bits(32)};
}

std::vector<i32> first_of(std::span<const i32> items, size_t n) {
  const auto first = items.first(n);
  return {first.begin(), first.end()};
}

}  // namespace

TEST_CASE("random: seeds, of one word and of two, of either sign") {
  CHECK(first_words(0) == std::vector<u64>{3626764237, 1654615998, 3255389356, 3823568514});
  CHECK(first_words(42) == std::vector<u64>{2746317213, 478163327, 107420369, 3184935163});
  CHECK(first_words(-42) == first_words(42));
  CHECK(first_words((i64{1} << 40) + 7) == std::vector<u64>{2635837658, 3209733218, 3500038837, 4028389051});
}

TEST_CASE("random: bits of every width, a float, and numbers below a bound") {
  PythonRandom random(7);
  CHECK(random.bits(1) == 0);
  CHECK(random.bits(5) == 30);
  CHECK(random.bits(31) == 323946139);
  CHECK(random.bits(32) == 1695753998);
  CHECK(random.bits(33) == 2795742288);
  CHECK(random.bits(64) == 15149836622520594227u);
  CHECK(random.uniform() == 0.5358820043066892);
  CHECK(random.below(1) == 0);
  CHECK(random.below(10) == 9);
  CHECK(random.below(u64{1} << 32) == 2179419893);
  CHECK(random.below((u64{1} << 33) + 5) == 161042648);
}

TEST_CASE("random: the state is refilled, and a copy goes on from where it was made") {
  PythonRandom random(1);
  for (int i = 0; i < 2000; ++i) random.bits(32);
  PythonRandom copy = random;
  CHECK(random.bits(32) == 1767993442);
  CHECK(copy.bits(32) == 1767993442);
}

TEST_CASE("random: shuffles, the second of the same list too") {
  std::vector<i32> order(128);
  std::iota(order.begin(), order.end(), 0);
  PythonRandom random(42);
  random.shuffle(std::span<i32>(order));
  CHECK(first_of(order, 16) == std::vector<i32>{9, 92, 102, 76, 49, 16, 62, 103, 104, 82, 47, 21, 30, 118, 32, 50});
  random.shuffle(std::span<i32>(order));
  CHECK(first_of(order, 8) == std::vector<i32>{84, 89, 5, 35, 127, 97, 82, 81});

  order.resize(512);
  std::iota(order.begin(), order.end(), 0);
  PythonRandom(42).shuffle(std::span<i32>(order));
  CHECK(first_of(order, 8) == std::vector<i32>{225, 213, 344, 127, 455, 92, 466, 182});
}
