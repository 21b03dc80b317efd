// Prefetching of rows. A batch reads random rows of a large table, which the hardware cannot
// predict.
#pragma once

#include <cstdint>

#include "kernels.h"

namespace {

using lord_fast::Schedule;
using lord_fast::Table;

constexpr int64_t kAhead = 4;  // distance in rows at which a row's data is prefetched
constexpr int64_t kFar = 24;   // distance in rows at which its pages and last step are prefetched
constexpr int64_t kFloatsPerLine = 16;

// Prefetches both ends of a row, which may hold weight and moments side by side, and its last step.
// In a large table looking up the page takes as long as reading the row, so it starts even earlier.
inline void translate(const Table& table, int64_t row) {
  const float* weight = table.weight + row * table.stride;
  __builtin_prefetch(weight);
  __builtin_prefetch(weight + table.stride - 1);
  __builtin_prefetch(table.last_step + row);
}

// Prefetches the learning rates with which the missed steps of a row are replayed. `translate` has
// fetched the row's last step.
inline void prefetch_rates(const Schedule& schedule, int64_t last_step) {
  const int64_t missed = schedule.step - last_step;
  const int64_t terms = missed < schedule.terms ? missed : schedule.terms;
  for (int64_t j = 0; j < terms; j += kFloatsPerLine) {
    __builtin_prefetch(schedule.lr + last_step + j);
  }
}

// Prefetches the lines of a row's state that begin at its element `i`, for writing if `kWrite`.
template <bool kWrite>
inline void prefetch_lines(const Table& table, int64_t row, int64_t i) {
  if (i % kFloatsPerLine != 0) return;  // a vector may be shorter than a line
  const int64_t offset = row * table.stride + i;
  __builtin_prefetch(table.weight + offset, kWrite);
  __builtin_prefetch(table.exp_avg + offset, kWrite);
  __builtin_prefetch(table.exp_avg_sq + offset, kWrite);
}

// Prefetches what the first of the items [begin, end) need. `row_of` returns the row of an item.
template <bool kWrite, typename RowOf>
inline void prefetch_first(const Table& table, const Schedule& schedule, int64_t begin, int64_t end,
                           const RowOf& row_of) {
  for (int64_t item = begin; item < end && item < begin + kFar; ++item) {
    translate(table, row_of(item));
  }
  for (int64_t item = begin; item < end && item < begin + kAhead; ++item) {
    const int64_t row = row_of(item);
    prefetch_rates(schedule, table.last_step[row]);
    for (int64_t i = 0; i < table.dim; i += kFloatsPerLine) prefetch_lines<kWrite>(table, row, i);
  }
}

// Prefetches what later items than `item` need, but for the state of the row that it returns. That
// row is processed in kAhead items. Its state is prefetched while the row of `item` is processed, a
// few lines at a time, because a core waits as soon as it has too many lines under way.
template <typename RowOf>
inline int64_t row_ahead(const Table& table, const Schedule& schedule, int64_t item, int64_t end,
                         const RowOf& row_of) {
  if (item + kFar < end) translate(table, row_of(item + kFar));
  const int64_t row = row_of(item + kAhead < end ? item + kAhead : item);
  prefetch_rates(schedule, table.last_step[row]);
  return row;
}

}  // namespace
