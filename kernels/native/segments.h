// A batch's rows, sorted into segments of one row each.
#pragma once

#include <cstdint>
#include <vector>

namespace lord_fast {

struct Segments {
  std::vector<int64_t> order;   // positions in the batch, by row, equal rows in batch order
  std::vector<int64_t> starts;  // of each segment in `order`, and the batch's length at the end
};

// A stable radix sort: the same segments on every run.
Segments sort_rows(const int64_t* rows, int64_t batch, int64_t num_rows);

}  // namespace lord_fast
