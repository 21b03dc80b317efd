// The types that library.cpp passes to the kernels. The kernels are compiled once per instruction
// set.
#pragma once

#include <cstdint>

namespace lord_fast {

// The state of a table. Row r starts at r * stride. Offsets are 64-bit because num_rows * dim can
// exceed 2^31.
struct Table {
  float* weight;
  float* exp_avg;
  float* exp_avg_sq;
  int64_t* last_step;
  int64_t dim;
  int64_t stride;  // floats from one row to the next, the same for all three tensors
};

// Powers of a decay. This is plain data without member functions. The linker keeps one copy of an
// inline function, which might use instructions that the machine lacks.
struct PowerTable {
  static constexpr int kBits = 6, kDigits = 4;
  double base;
  double entry[kDigits][1 << kBits];  // entry[digit][i] is base^(i * 64^digit)
};

// Adam's constants and the values that all rows of a call share.
struct Schedule {
  double beta1, beta2, eps;
  const float* lr;         // learning rate of every step
  int64_t step;            // updates done so far
  int64_t terms;           // missed steps that can still move a row
  const double* power1;    // beta1^1 to beta1^terms, then zeros to fill a vector
  const double* inverse2;  // beta2^-1 to beta2^-terms, then ones to fill a vector
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
  const int64_t* starts;  // segment s is order[starts[s]] .. order[starts[s + 1] - 1], all one row
  const int64_t* rows;
  const float* grad;
};

// The maps are [images, pixels, channels] in float, or in bfloat16 if `bf16`. Codes are [images,
// channels], and `added` is [channels].
struct LeakyAdainTask {
  const void* x;
  const float *added, *bias, *scale;
  int64_t pixels, channels;
  float slope, eps;
  bool bf16;
  void* out;
  float *mean, *rstd;
};

struct LeakyAdainBackwardTask {
  const void *grad, *x;
  const float *added, *scale, *mean, *rstd;
  int64_t pixels, channels;
  float slope;
  bool bf16;
  void* of_x;
  float *of_added, *of_bias, *of_scale;
};

// gather processes rows [begin, end) of a batch, and scatter_adam segments [begin, end). `scratch`
// holds 2 * (terms + 8) floats, and dim more for scatter_adam. leaky_adain and
// leaky_adain_backward process one image.
struct Kernels {
  const char* name;
  void (*gather)(const GatherTask&, int64_t begin, int64_t end, float* scratch);
  void (*scatter_adam)(const ScatterAdamTask&, int64_t begin, int64_t end, float* scratch);
  void (*leaky_adain)(const LeakyAdainTask&, int64_t image);
  void (*leaky_adain_backward)(const LeakyAdainBackwardTask&, int64_t image);
};

}  // namespace lord_fast
