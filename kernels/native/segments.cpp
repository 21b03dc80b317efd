#include "segments.h"

#include <algorithm>
#include <array>
#include <numeric>
#include <utility>

namespace lord_fast {
namespace {

constexpr int kBits = 11;  // bits per digit, so that the counters fit into the L1 cache
constexpr int64_t kFewRows = 512;

void sort_by_digit(const int64_t* rows, int shift, std::vector<int64_t>& order,
                   std::vector<int64_t>& sorted) {
  constexpr int64_t kMask = (1 << kBits) - 1;
  std::array<int64_t, (1 << kBits) + 1> place = {};
  for (const int64_t at : order) ++place[((rows[at] >> shift) & kMask) + 1];
  std::partial_sum(place.begin(), place.end(), place.begin());
  for (const int64_t at : order) sorted[place[(rows[at] >> shift) & kMask]++] = at;
  std::swap(order, sorted);
}

}  // namespace

Segments sort_rows(const int64_t* rows, int64_t batch, int64_t num_rows) {
  Segments out;
  out.order.resize(batch);
  std::iota(out.order.begin(), out.order.end(), 0);
  if (batch <= kFewRows) {
    std::sort(out.order.begin(), out.order.end(), [rows](int64_t a, int64_t b) {
      return rows[a] != rows[b] ? rows[a] < rows[b] : a < b;
    });
  } else {
    std::vector<int64_t> sorted(batch);
    for (int shift = 0; shift < 63 && (num_rows - 1) >> shift > 0; shift += kBits) {
      sort_by_digit(rows, shift, out.order, sorted);
    }
  }
  out.starts.reserve(batch + 1);
  for (int64_t at = 0; at < batch; ++at) {
    if (at == 0 || rows[out.order[at]] != rows[out.order[at - 1]]) out.starts.push_back(at);
  }
  out.starts.push_back(batch);
  return out;
}

}  // namespace lord_fast
