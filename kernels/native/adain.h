// LeakyReLU followed by AdaIN over NHWC memory, some channels of an image at a time. The second and
// third pass read from the cache where it holds them.
#pragma once

#include <cstdint>

#include "kernels.h"
#include "simd.h"

namespace {

using lord_fast::LeakyAdainBackwardTask;
using lord_fast::LeakyAdainTask;

constexpr int64_t kPixelsPerSum = 64;  // partial sums keep the digits of long sums

// A sum of vectors, in parts of kPixelsPerSum terms.
class Sum {
 public:
  void add(Float x) { part_ += x; }
  void end_part() {
    total_ += part_;
    part_ = Float{};
  }
  Float total() const { return total_; }

 private:
  Float total_ = {}, part_ = {};
};

// Calls work(pixel) for every pixel and end_part() after each part.
template <typename Work, typename EndPart>
inline void for_pixels(int64_t pixels, const Work& work, const EndPart& end_part) {
  for (int64_t begin = 0; begin < pixels; begin += kPixelsPerSum) {
    const int64_t rest = pixels - begin,
                  end = begin + (rest < kPixelsPerSum ? rest : kPixelsPerSum);
    for (int64_t pixel = begin; pixel < end; ++pixel) work(pixel);
    end_part();
  }
}

inline Float leaky(Float x, float slope) { return x > 0 ? x : slope * x; }

// Computes the channels of one image that begin at `channel`. `Lanes` says how many they are.
template <typename Value, typename Lanes>
void leaky_adain_channels(const LeakyAdainTask& task, int64_t image, int64_t channel, Lanes lanes) {
  const int64_t channels = task.channels, code = image * channels + channel;
  const Value* x = static_cast<const Value*>(task.x) + image * task.pixels * channels + channel;
  Value* out = static_cast<Value*>(task.out) + image * task.pixels * channels + channel;
  const Float added = lanes.load(task.added + channel);
  const float inverse = 1.0f / static_cast<float>(task.pixels);
  const auto at = [&](int64_t pixel) {
    return leaky(lanes.load(x + pixel * channels) + added, task.slope);
  };

  Sum sum, squares;
  for_pixels(task.pixels, [&](int64_t p) { sum.add(at(p)); }, [&] { sum.end_part(); });
  const Float mean = sum.total() * inverse;
  const auto add_square = [&](int64_t p) {
    const Float centred = at(p) - mean;
    squares.add(centred * centred);
  };
  for_pixels(task.pixels, add_square, [&] { squares.end_part(); });
  const Float rstd = 1.0f / root(squares.total() * inverse + task.eps);

  const Float scale = lanes.load(task.scale + code) * rstd, bias = lanes.load(task.bias + code);
  for (int64_t p = 0; p < task.pixels; ++p) {
    lanes.store(out + p * channels, (at(p) - mean) * scale + bias);
  }
  lanes.store(task.mean + code, mean);
  lanes.store(task.rstd + code, rstd);
}

template <typename Value, typename Lanes>
void leaky_adain_backward_channels(const LeakyAdainBackwardTask& task, int64_t image,
                                   int64_t channel, Lanes lanes) {
  const int64_t channels = task.channels, code = image * channels + channel;
  const int64_t first = image * task.pixels * channels + channel;
  const Value* x = static_cast<const Value*>(task.x) + first;
  const Value* grad = static_cast<const Value*>(task.grad) + first;
  Value* of_x = static_cast<Value*>(task.of_x) + first;
  const Float added = lanes.load(task.added + channel), mean = lanes.load(task.mean + code),
              rstd = lanes.load(task.rstd + code);
  const auto shifted = [&](int64_t p) { return lanes.load(x + p * channels) + added; };
  const auto normal = [&](Float before) { return (leaky(before, task.slope) - mean) * rstd; };

  Sum of_bias, of_scale, of_added;
  const auto add_both = [&](int64_t p) {
    const Float g = lanes.load(grad + p * channels);
    of_bias.add(g);
    of_scale.add(g * normal(shifted(p)));
  };
  const auto end_both = [&] {
    of_bias.end_part();
    of_scale.end_part();
  };
  for_pixels(task.pixels, add_both, end_both);

  const float inverse = 1.0f / static_cast<float>(task.pixels);
  const Float mean_of_bias = of_bias.total() * inverse, mean_of_scale = of_scale.total() * inverse;
  const Float scale = lanes.load(task.scale + code) * rstd;
  const auto write = [&](int64_t p) {
    const Float before = shifted(p), g = lanes.load(grad + p * channels);
    const Float of_y = (g - (mean_of_bias + normal(before) * mean_of_scale)) * scale;
    const Float found = before > 0 ? of_y : task.slope * of_y;
    of_added.add(found);
    lanes.store(of_x + p * channels, found);
  };
  for_pixels(task.pixels, write, [&] { of_added.end_part(); });
  lanes.store(task.of_added + code, of_added.total());
  lanes.store(task.of_bias + code, of_bias.total());
  lanes.store(task.of_scale + code, of_scale.total());
}

// Calls work(channel, lanes) for all channels of an image.
template <typename Work>
void for_channels(int64_t channels, const Work& work) {
  int64_t channel = 0;
  for (; channel + kLanes <= channels; channel += kLanes) work(channel, AllLanes{});
  if (channel < channels) work(channel, FirstLanes{channels - channel});
}

void leaky_adain(const LeakyAdainTask& task, int64_t image) {
  for_channels(task.channels, [&](int64_t channel, auto lanes) {
    const auto compute = task.bf16 ? leaky_adain_channels<Bf16, decltype(lanes)>
                                   : leaky_adain_channels<float, decltype(lanes)>;
    compute(task, image, channel, lanes);
  });
}

void leaky_adain_backward(const LeakyAdainBackwardTask& task, int64_t image) {
  for_channels(task.channels, [&](int64_t channel, auto lanes) {
    const auto compute = task.bf16 ? leaky_adain_backward_channels<Bf16, decltype(lanes)>
                                   : leaky_adain_backward_channels<float, decltype(lanes)>;
    compute(task, image, channel, lanes);
  });
}

}  // namespace
