// What library.cpp hands to the kernels, which are compiled once for each instruction set.
#pragma once

#include <cstdint>

namespace lord_fast {

// A table's state; row r starts at r * stride (64 bit: num_rows * dim passes 2^31).
struct Table {
  float* weight;
  float* exp_avg;
  float* exp_avg_sq;
  int64_t* last_step;
  int64_t dim;
  int64_t stride;  // floats from one row to the next, of all three
};

// Powers of a decay. Plain data: an inline function that is compiled for several instruction sets
// could be linked into a machine's code that lacks one.
struct PowerTable {
  static constexpr int kBits = 6, kDigits = 4;
  double base;
  double entry[kDigits][1 << kBits];  // base^(i * 64^digit): one factor a digit of the exponent
};

// Adam's constants and what all rows of a call share.
struct Schedule {
  double beta1, beta2, eps;
  const float* lr;         // of every step
  int64_t step;            // updates done so far
  int64_t terms;           // missed steps that can still move a row
  const double* power1;    // beta1^1, beta1^2, ...: `terms` of them, then zeros to fill a vector
  const double* inverse2;  // beta2^-1, beta2^-2, ..., then ones
  const PowerTable* any_power1;
  const PowerTable* any_power2;
};

struct GatherTask {
  Table table;
  Schedule schedule;
  const int64_t* rows;
  const int64_t* noise_ids;
  float std;
  uint64_t seed;
  float* codes;
};

struct ScatterAdamTask {
  Table table;
  Schedule schedule;
  const int64_t* order;   // positions in the batch, sorted by row, equal rows in batch order
  const int64_t* starts;  // segment s: order[starts[s]] .. order[starts[s + 1] - 1], one row
  const int64_t* rows;
  const float* grad;
};

// Rows [begin, end) of a batch, or segments; `scratch` holds 2 * (terms + 8) floats, and dim more.
struct Kernels {
  const char* name;
  void (*gather)(const GatherTask&, int64_t begin, int64_t end, float* scratch);
  void (*scatter_adam)(const ScatterAdamTask&, int64_t begin, int64_t end, float* scratch);
};

}  // namespace lord_fast
