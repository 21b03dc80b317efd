// The C interface. It checks arguments, chooses the instruction set and shares work among threads.
#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <new>
#include <vector>

#include "kernels.h"
#include "lord_fast_kernels.h"
#include "segments.h"
#include "threads.h"

namespace lord_fast {

extern const Kernels kernels_baseline;
#if defined(LORD_FAST_X86)
extern const Kernels kernels_avx2;
extern const Kernels kernels_avx512;
#endif

namespace {

constexpr int64_t kFloatsPerPart = 4096;
constexpr int64_t kFewParts = 2;  // up to so many parts, waking a thread would take longer
constexpr int64_t kPadding = 8;   // powers are read in whole vectors

// The kernels that run on this machine, from fastest to slowest.
std::vector<const Kernels*> runnable() {
  std::vector<const Kernels*> found;
#if defined(LORD_FAST_X86)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq")) {
    found.push_back(&kernels_avx512);
  }
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
    found.push_back(&kernels_avx2);
  }
#endif
  found.push_back(&kernels_baseline);
  return found;
}

std::atomic<const Kernels*>& live() {
  static std::atomic<const Kernels*> kernels{runnable().front()};
  return kernels;
}

PowerTable power_table(double base) {
  PowerTable table = {base, {}};
  for (auto& digit : table.entry) {
    double power = 1;
    for (double& entry : digit) {
      entry = power;
      power *= base;
    }
    base = power;
  }
  return table;
}

// A Schedule and the memory that it points to.
struct Powers {
  std::vector<double> power1, inverse2;
  PowerTable any_power1, any_power2;
  Schedule schedule;

  Powers(double beta1, double beta2, double eps, const float* lr, int64_t step, int64_t terms)
      : power1(terms + kPadding, 0.0),
        inverse2(terms + kPadding, 1.0),
        any_power1(power_table(beta1)),
        any_power2(power_table(beta2)),
        schedule{beta1,         beta2,           eps,         lr,         step, terms,
                 power1.data(), inverse2.data(), &any_power1, &any_power2} {
    double product1 = 1, product2 = 1;
    for (int64_t j = 0; j < terms; ++j) {
      power1[j] = product1 *= beta1;
      inverse2[j] = 1 / (product2 *= beta2);
    }
  }
  Powers(const Powers&) = delete;
};

Status check_rows(const int64_t* rows, int64_t batch, int64_t num_rows, const int64_t* last_step,
                  int64_t step) {
  for (int64_t b = 0; b < batch; ++b) {
    if (rows[b] < 0 || rows[b] >= num_rows) return kRowOutOfRange;
  }
  bool ahead = false;
  for (int64_t b = 0; b < batch; ++b) {
    const int64_t last = last_step[rows[b]];
    ahead |= last < 0 || last > step;
  }
  return ahead ? kRowAhead : kDone;
}

// Splits `items` rows of `dim` floats into parts and calls work(begin, end, scratch) on each.
template <typename Work>
void share_rows(int64_t items, int64_t dim, int threads, int64_t scratch_size, const Work& work) {
  const int64_t rows = std::max<int64_t>(1, kFloatsPerPart / std::max<int64_t>(1, dim));
  const int64_t parts = (items + rows - 1) / rows;
  if (parts <= kFewParts) threads = 1;
  std::vector<float> scratch(std::max(threads, 1) * scratch_size);
  share(parts, threads, [&](int64_t part, int slot) {
    work(part * rows, std::min(items, (part + 1) * rows), scratch.data() + slot * scratch_size);
  });
}

}  // namespace
}  // namespace lord_fast

using namespace lord_fast;

int lord_fast_abi_version() { return kAbiVersion; }

const char* lord_fast_instructions(const char* name) {
  if (name == nullptr) return live().load()->name;
  for (const Kernels* kernels : runnable()) {
    if (std::strcmp(kernels->name, name) == 0) {
      live() = kernels;
      return kernels->name;
    }
  }
  return nullptr;
}

int lord_fast_gather(const float* weight, const float* exp_avg, const float* exp_avg_sq,
                     const int64_t* last_step, int64_t num_rows, int64_t dim, int64_t stride,
                     const int64_t* rows, const int64_t* noise_ids, int64_t batch, const float* lr,
                     int64_t total_steps, const int64_t* step, float std, uint64_t seed,
                     double beta1, double beta2, double eps, int64_t terms, int threads,
                     float* codes) try {
  if (*step < 0 || *step > total_steps) return kStepOutOfRange;
  const Status status = check_rows(rows, batch, num_rows, last_step, *step);
  if (status != kDone) return status;

  const Powers powers(beta1, beta2, eps, lr, *step, terms);
  const GatherTask task = {
      // gather only reads these. The casts let both operators share one struct.
      {const_cast<float*>(weight), const_cast<float*>(exp_avg), const_cast<float*>(exp_avg_sq),
       const_cast<int64_t*>(last_step), dim, stride},
      powers.schedule,
      rows,
      noise_ids,
      std,
      seed,
      codes,
  };
  const Kernels* kernels = live();
  share_rows(batch, dim, threads, 2 * (terms + kPadding),
             [&](int64_t begin, int64_t end, float* scratch) {
               kernels->gather(task, begin, end, scratch);
             });
  return kDone;
} catch (const std::bad_alloc&) {
  return kOutOfMemory;
}

int lord_fast_scatter_adam(float* weight, float* exp_avg, float* exp_avg_sq, int64_t* last_step,
                           int64_t num_rows, int64_t dim, int64_t stride, const int64_t* rows,
                           const float* grad, int64_t batch, const float* lr, int64_t total_steps,
                           const int64_t* step, double beta1, double beta2, double eps,
                           int64_t terms, int threads) try {
  if (*step < 0 || *step >= total_steps) return kStepOutOfRange;
  const Status status = check_rows(rows, batch, num_rows, last_step, *step);
  if (status != kDone) return status;

  const Powers powers(beta1, beta2, eps, lr, *step, terms);
  const Segments segments = sort_rows(rows, batch, num_rows);
  const ScatterAdamTask task = {
      {weight, exp_avg, exp_avg_sq, last_step, dim, stride},
      powers.schedule,
      segments.order.data(),
      segments.starts.data(),
      rows,
      grad,
  };
  const Kernels* kernels = live();
  const int64_t count = static_cast<int64_t>(segments.starts.size()) - 1;
  share_rows(count, dim, threads, 2 * (terms + kPadding) + dim,
             [&](int64_t begin, int64_t end, float* scratch) {
               kernels->scatter_adam(task, begin, end, scratch);
             });
  return kDone;
} catch (const std::bad_alloc&) {
  return kOutOfMemory;
}

void lord_fast_leaky_adain(const void* x, const float* added, const float* bias, const float* scale,
                           int64_t images, int64_t pixels, int64_t channels, float slope, float eps,
                           int bf16, int threads, void* out, float* mean, float* rstd) {
  const LeakyAdainTask task = {x,     added, bias,      scale, pixels, channels,
                               slope, eps,   bf16 != 0, out,   mean,   rstd};
  const Kernels* kernels = live();
  share(images, threads, [&](int64_t image, int) { kernels->leaky_adain(task, image); });
}

void lord_fast_leaky_adain_backward(const void* grad, const void* x, const float* added,
                                    const float* scale, const float* mean, const float* rstd,
                                    int64_t images, int64_t pixels, int64_t channels, float slope,
                                    int bf16, int threads, void* of_x, float* of_added,
                                    float* of_bias, float* of_scale) {
  const LeakyAdainBackwardTask task = {grad, x,        added,    scale,   mean,
                                       rstd, pixels,   channels, slope,   bf16 != 0,
                                       of_x, of_added, of_bias,  of_scale};
  const Kernels* kernels = live();
  share(images, threads, [&](int64_t image, int) { kernels->leaky_adain_backward(task, image); });
}
