// Which samples a step sees: all of them in a shuffled order, then shuffled again; the tail that fills no batch is left out.
// The shuffles are those of the reference (CPython's random), so that its runs can be followed step by step.
#pragma once
#include <numeric>
#include <span>
#include <vector>

#include "base/rng.h"

namespace signround {

class Sampler {
 public:
  Sampler(PythonRandom& random, i64 samples) : random_(random), order_(static_cast<size_t>(samples)) {
    std::iota(order_.begin(), order_.end(), i32{0});
    random_.shuffle(std::span<i32>(order_));
  }

  // Appends the next `count` samples to `to`.
  void next(i64 count, std::vector<i32>& to) {
    const size_t n = static_cast<size_t>(count);
    check(n <= order_.size(), ErrorKind::bug, "a batch of ", count, " from ", order_.size(), " samples");
    if (at_ + n > order_.size()) {
      random_.shuffle(std::span<i32>(order_));
      at_ = 0;
    }
    to.insert(to.end(), order_.begin() + static_cast<std::ptrdiff_t>(at_), order_.begin() + static_cast<std::ptrdiff_t>(at_ + n));
    at_ += n;
  }

 private:
  PythonRandom& random_;
  std::vector<i32> order_;
  size_t at_ = 0;
};

}  // namespace signround
