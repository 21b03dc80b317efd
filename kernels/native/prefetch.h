// Prefetching of rows. A batch reads random rows of a large table, which the hardware cannot
// predict.
#pragma once

#include <cstdint>

#include "kernels.h"

namespace {

constexpr int64_t kAhead = 4;  // distance in rows at which a row's data is prefetched
constexpr int64_t kFar = 24;   // distance in rows at which its pages are looked up
constexpr int64_t kFloatsPerLine = 16;

// Prefetches both ends of a row, which may hold weight and moments side by side. In a large table
// looking up the page takes as long as reading the row, so it starts even earlier.
inline void translate(const lord_fast::Table& table, int64_t row) {
  const float* weight = table.weight + row * table.stride;
  __builtin_prefetch(weight);
  __builtin_prefetch(weight + table.stride - 1);
}

// Prefetches the state of a row, for writing if `kWrite`.
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
