// A quantized linear on the CPU, in vectors: everything that the ops read or write for it.
#pragma once
#include "ops/cpu/qdq.h"
#include "testing.h"

namespace signround::SIGNROUND_ISA {

template <class W>
struct Linear {
  i64 rows, cols;
  QuantSpec spec;
  i64 groups = rows * spec.groups(cols);
  std::vector<W> w, wq = std::vector<W>(static_cast<size_t>(rows * cols));
  std::vector<float> v = std::vector<float>(w.size(), 0.0f), dwq = v;
  std::vector<float> wmin = std::vector<float>(static_cast<size_t>(groups)), wmax = wmin;
  std::vector<float> lo = std::vector<float>(wmin.size(), 1.0f), hi = lo;
  std::vector<u8> codes = std::vector<u8>(w.size()), zero = std::vector<u8>(wmin.size());
  std::vector<f16> scale = std::vector<f16>(static_cast<size_t>(rows * spec.scales(cols)));
  std::vector<i8> factor = std::vector<i8>(spec.two_levels() ? wmin.size() : 0);
  std::vector<f16> offset = std::vector<f16>(spec.two_levels() && !spec.symmetric ? scale.size() : 0);

  Linear(i64 rows, i64 cols, QuantSpec spec, std::vector<W> w) : rows(rows), cols(cols), spec(spec), w(std::move(w)) {}

  QdqTensors tensors() {
    const i64 g = spec.groups(cols);
    return {tensor(w, rows, cols), tensor(wmin, rows, g), tensor(wmax, rows, g), tensor(v, rows, cols), tensor(lo, rows, g),
            tensor(hi, rows, g)};
  }
  void quantize(Backend& b) {
    b.group_range(tensors().wmin, tensors().wmax, tensors().w, spec);
    b.qdq(tensor(wq, rows, cols), tensors(), spec);
    GridTensors grid{tensor(codes, rows, cols), tensor(scale), tensor(zero), {}, {}};
    if (!factor.empty()) grid.factor = view(factor.data(), DType::i8, groups);
    if (!offset.empty()) grid.offset = tensor(offset);
    b.qdq_codes(grid, tensors(), spec);
  }
  void step(Backend& b, float lr, float minmax_lr, float most = 1) {
    std::vector<float> lrs = {0, lr}, minmax_lrs = {0, minmax_lr};
    std::vector<i32> counters = {0, 1, 0, 0};  // the second of two steps
    TuningState state{};
    state.lr = tensor(lrs), state.minmax_lr = tensor(minmax_lrs), state.counters = tensor(counters);
    const QdqStep one{tensor(wq, rows, cols), tensors(), tensor(dwq, rows, cols), spec, most};
    b.qdq_step({&one, 1}, state);
  }
  // Where the search starts it, h being the costs of its columns.
  void search(Backend& b, std::vector<float>& h) {
    b.group_range(tensors().wmin, tensors().wmax, tensors().w, spec);
    b.search_factors(tensors(), tensor(h), spec);
  }
  // {d lo, d hi} of a group of one level; dv if wanted.
  std::array<float, 2> gradients(i64 group, std::vector<float>* dv = nullptr) {
    const i64 per_row = spec.groups(cols), size = spec.group_of(cols), at = group / per_row * cols + group % per_row * size;
    const i64 n = std::min(size, cols - group % per_row * size);
    const Range<float> range{wmin[group], wmax[group], lo[group], hi[group]};
    const auto use = [&](i64 first, i64 count, const float* piece) {
      if (dv) std::copy_n(piece, count, dv->begin() + at + first);
    };
    const Grid<float> grid = grid_of(range, spec);
    const std::array<float, 2> sums = group_bwd(dwq.data() + at, w.data() + at, v.data() + at, n, grid, use);
    return range_bwd(range, grid, sums[0], sums[1], spec);
  }
};

}  // namespace signround::SIGNROUND_ISA
