// A matrix of bytes turned over, whatever its elements are.
#pragma once
#include <cstddef>
#include <cstring>
#include <span>
#include <vector>

#include "base/error.h"

namespace signround {

// from [rows, cols] -> [cols, rows]
inline std::vector<std::byte> transpose(std::span<const std::byte> from, i64 rows, i64 cols) {
  check(rows > 0 && cols > 0 && static_cast<i64>(from.size()) % (rows * cols) == 0, ErrorKind::bug, from.size(),
        " bytes are no matrix of ", rows, " x ", cols);
  const size_t size = from.size() / static_cast<size_t>(rows * cols);
  std::vector<std::byte> to(from.size());
  for (i64 r = 0; r < rows; ++r)
    for (i64 c = 0; c < cols; ++c)
      std::memcpy(&to[static_cast<size_t>(c * rows + r) * size], &from[static_cast<size_t>(r * cols + c) * size], size);
  return to;
}

}  // namespace signround
