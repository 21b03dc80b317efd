// Sorts the rows of a batch into segments, one per distinct row.
#pragma once

#include <cstdint>
#include <vector>

namespace lord_fast {

struct Segments {
  std::vector<int64_t> order;   // positions in the batch, sorted by row, equal rows in batch order
  std::vector<int64_t> starts;  // where each segment starts in `order`, then the batch size
};

// Equal rows stay in batch order, so every run sums their gradients in the same order.
Segments sort_rows(const int64_t* rows, int64_t batch, int64_t num_rows);

}  // namespace lord_fast
