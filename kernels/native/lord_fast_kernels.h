// The C interface of liblord_fast_kernels, which kernels/native/loader.py loads with ctypes.
//
// kernels/ops.py defines what the operators compute. All arrays are dense and row-major and
// belong to the caller. No pointer is kept after a call. The result is bitwise identical for any
// number of threads.
#pragma once

#include <cstdint>

#define LORD_FAST_API extern "C" __attribute__((visibility("default")))

// Increment this when a signature or the meaning of an argument changes.
constexpr int kAbiVersion = 2;

enum Status : int {
  kDone = 0,
  kRowOutOfRange = 1,   // a row is negative or not below num_rows
  kStepOutOfRange = 2,  // `step` is negative or beyond the schedule
  kRowAhead = 3,        // a row's last_step is negative or beyond `step`
  kOutOfMemory = 4,
};

LORD_FAST_API int lord_fast_abi_version();

// Selects the instruction set `name` and returns the one in use, such as "avx2". If this build or
// this machine does not support `name`, nothing changes and null is returned. If `name` is null,
// nothing is selected. Initially the best supported set is in use.
LORD_FAST_API const char* lord_fast_instructions(const char* name);

// Writes the rows as of `step`, plus std * noise, to `codes` [batch, dim]. Nothing else is written.
LORD_FAST_API int lord_fast_gather(const float* weight, const float* exp_avg,
                                   const float* exp_avg_sq, const int64_t* last_step,
                                   int64_t num_rows, int64_t dim, int64_t stride,
                                   const int64_t* rows, const int64_t* noise_ids, int64_t batch,
                                   const float* lr, int64_t total_steps, const int64_t* step,
                                   float std, uint64_t seed, double beta1, double beta2, double eps,
                                   int64_t terms, int threads, float* codes);

// Applies one update to the rows. If the status is not kDone, nothing was written.
LORD_FAST_API int lord_fast_scatter_adam(float* weight, float* exp_avg, float* exp_avg_sq,
                                         int64_t* last_step, int64_t num_rows, int64_t dim,
                                         int64_t stride, const int64_t* rows, const float* grad,
                                         int64_t batch, const float* lr, int64_t total_steps,
                                         const int64_t* step, double beta1, double beta2,
                                         double eps, int64_t terms, int threads);

// Computes LeakyReLU and AdaIN of `x` [images, pixels, channels], float or bfloat16, with codes
// `bias` and `scale` [images, channels]. Writes `out` and the statistics `mean` and `rstd`.
LORD_FAST_API void lord_fast_leaky_adain(const void* x, const float* added, const float* bias,
                                         const float* scale, int64_t images, int64_t pixels,
                                         int64_t channels, float slope, float eps, int bf16,
                                         int threads, void* out, float* mean, float* rstd);

// Computes the gradients of x, and those of added (for each image), bias and scale.
LORD_FAST_API void lord_fast_leaky_adain_backward(const void* grad, const void* x,
                                                  const float* added, const float* scale,
                                                  const float* mean, const float* rstd,
                                                  int64_t images, int64_t pixels, int64_t channels,
                                                  float slope, int bf16, int threads, void* of_x,
                                                  float* of_added, float* of_bias, float* of_scale);

// Copies rows of `row_bytes` bytes between a file and memory. Rows may come in any order. Returns
// 0, the errno of the call that failed, or kFileTooShort.
constexpr int kFileTooShort = -1;
LORD_FAST_API int lord_fast_read_rows(int file, const int64_t* rows, int64_t count,
                                      int64_t row_bytes, char* out);
LORD_FAST_API int lord_fast_write_rows(int file, const int64_t* rows, int64_t count,
                                       int64_t row_bytes, const char* values);
