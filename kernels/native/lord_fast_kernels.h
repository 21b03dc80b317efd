// The C interface of liblord_fast_kernels, which kernels/native/__init__.py loads with ctypes.
//
// What the two operators compute stands in kernels/ops.py. All arrays are dense and row-major, in
// the caller's memory; nothing is kept after a call. Any number of threads gives the same bits.
#pragma once

#include <cstdint>

#define LORD_FAST_API extern "C" __attribute__((visibility("default")))

// Raised whenever a signature or the meaning of an argument changes.
constexpr int kAbiVersion = 1;

enum Status : int {
  kDone = 0,
  kRowOutOfRange = 1,   // a row is negative or not below num_rows
  kStepOutOfRange = 2,  // no learning rate for `step`
  kRowAhead = 3,        // a row's last_step is negative or beyond `step`
  kOutOfMemory = 4,
};

LORD_FAST_API int lord_fast_abi_version();

// The instruction set in use ("avx2"), or null where `name` is given and is not in this build or
// not in this machine. Null for `name`: only ask. The best one is in use from the start.
LORD_FAST_API const char* lord_fast_instructions(const char* name);

// codes [batch, dim] = the named rows as of `step`, plus std * noise. Nothing else is written.
LORD_FAST_API int lord_fast_gather(const float* weight, const float* exp_avg,
                                   const float* exp_avg_sq, const int64_t* last_step,
                                   int64_t num_rows, int64_t dim, int64_t stride,
                                   const int64_t* rows, const int64_t* noise_ids, int64_t batch,
                                   const float* lr, int64_t total_steps, const int64_t* step,
                                   float std, uint64_t seed, double beta1, double beta2, double eps,
                                   int64_t terms, int threads, float* codes);

// One update of the named rows; where the status is not kDone, nothing was written.
LORD_FAST_API int lord_fast_scatter_adam(float* weight, float* exp_avg, float* exp_avg_sq,
                                         int64_t* last_step, int64_t num_rows, int64_t dim,
                                         int64_t stride, const int64_t* rows, const float* grad,
                                         int64_t batch, const float* lr, int64_t total_steps,
                                         const int64_t* step, double beta1, double beta2,
                                         double eps, int64_t terms, int threads);
