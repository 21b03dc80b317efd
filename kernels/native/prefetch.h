// Rows lie anywhere in a large table: their memory is asked for before it is needed.
#pragma once

#include <cstdint>

#include "kernels.h"

namespace {

constexpr int64_t kAhead = 4;  // rows on their way while one is computed
constexpr int64_t kFar = 24;   // rows whose addresses are
constexpr int64_t kFloatsPerLine = 16;

// The ends of a row, whose parts may lie side by side: in a large table finding a page takes as
// long as reading the row, and is begun earlier still.
inline void translate(const lord_fast::Table& table, int64_t row) {
  const float* weight = table.weight + row * table.stride;
  __builtin_prefetch(weight);
  __builtin_prefetch(weight + table.stride - 1);
}

// The state of a row, with the lines to be written if `kWrite`.
template <bool kWrite>
inline void prefetch(const lord_fast::Table& table, int64_t row) {
  const int64_t offset = row * table.stride;
  for (int64_t i = 0; i < table.dim; i += kFloatsPerLine) {
    __builtin_prefetch(table.weight + offset + i, kWrite);
    __builtin_prefetch(table.exp_avg + offset + i, kWrite);
    __builtin_prefetch(table.exp_avg_sq + offset + i, kWrite);
  }
}

}  // namespace
