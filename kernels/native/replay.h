// Replay of the zero-gradient steps of dense Adam that a row missed, with one division per element.
//
// Missed step j moves an element by a_j m / (sqrt(v) + e_j), where a_j and e_j depend only on the
// row. Let S = sum a_j, E = sum a_j e_j / S and V = sum a_j (e_j - E)^2 / S. Then the whole sum is
// S m / (sqrt(v) + E), up to a relative error of V / (sqrt(v) + E)^2. Where that error exceeds the
// resolution of float32, the terms are added one by one.
#pragma once

#include <cmath>
#include <cstdint>

#include "kernels.h"
#include "simd.h"

namespace {

using lord_fast::PowerTable;
using lord_fast::Schedule;

constexpr double kResolution = 0x1p-24;  // half a unit in the last place of 1.0f

// base^exponent, exponent >= 0.
inline double power(const PowerTable& table, int64_t exponent) {
  constexpr int64_t kMask = (1 << PowerTable::kBits) - 1;
  if (exponent >> (PowerTable::kBits * PowerTable::kDigits) != 0) {
    return std::pow(table.base, static_cast<double>(exponent));
  }
  double product = table.entry[0][exponent & kMask];
  for (int digit = 1; digit < PowerTable::kDigits; ++digit) {
    exponent >>= PowerTable::kBits;
    product *= table.entry[digit][exponent & kMask];
  }
  return product;
}

class Replay {
 public:
  // `scratch` holds 2 * (terms + 8) floats, which stay in use until the next row.
  Replay(const Schedule& schedule, int64_t last_step, float* scratch)
      : schedule_(schedule), last_step_(last_step), scratch_(scratch) {
    const int64_t missed = schedule.step - last_step;
    count_ = missed < schedule.terms ? missed : schedule.terms;
    decay1 = static_cast<float>(power(*schedule.any_power1, missed));
    decay2 = static_cast<float>(power(*schedule.any_power2, missed));
    start1_ = power(*schedule.any_power1, last_step);
    start2_ = power(*schedule.any_power2, last_step);
    sum_terms();
  }

  // The distance that the missed steps moved elements with first moment `m` and second moment
  // `square`^2.
  Float moved(Float m, Float square) const {
    const Float denominator = square + mean_floor_;
    const Float fast = total_size_ * m / denominator;
    const Int near = (denominator < near_) & (m != 0.0f);
    return any(near) ? (near ? moved_by_terms(m, square) : fast) : fast;
  }

  float decay1, decay2;  // decay of the two moments over all missed steps

 private:
  // Computes a_j and e_j / eps for terms [first, first + kDoubles). a_j is 0 beyond the last term.
  void terms(int64_t first, Double& size, Double& grown) const {
    const Double beta1 = load(schedule_.power1 + first);
    const Double inverse2 = load(schedule_.inverse2 + first);
    Double rate = {};
    for (int64_t j = 0; j < kDoubles && first + j < count_; ++j) {
      rate[j] = schedule_.lr[last_step_ + first + j];
    }
    // In step j, sqrt(v / (1 - beta2^(s + j))) is sqrt(exp_avg_sq) / grown, where s = last_step.
    // Numerator and denominator are both multiplied by grown.
    grown = root(inverse2 - start2_);
    size = rate * beta1 * grown / (1.0 - start1_ * beta1);
  }

  void sum_terms() {
    Double sizes = {}, floors = {}, squares = {};
    for (int64_t first = 0; first < count_; first += kDoubles) {
      Double size, grown;
      terms(first, size, grown);
      sizes += size;
      floors += size * grown;
      squares += size * grown * grown;
    }
    const double total = sum(sizes);
    const double mean = total > 0 ? sum(floors) / total : 1.0;
    const double variance = total > 0 ? sum(squares) / total - mean * mean : 0.0;
    total_size_ = static_cast<float>(total);
    mean_floor_ = static_cast<float>(schedule_.eps * mean);
    near_ = static_cast<float>(schedule_.eps * std::sqrt(std::fmax(variance, 0.0) / kResolution));
  }

  __attribute__((noinline)) Float moved_by_terms(Float m, Float square) const {
    if (!written_) write_terms();
    Float total = {};
    for (int64_t j = 0; j < count_; ++j) {
      total += scratch_[2 * j] * m / (square + scratch_[2 * j + 1]);
    }
    return total;
  }

  void write_terms() const {
    for (int64_t first = 0; first < count_; first += kDoubles) {
      Double size, grown;
      terms(first, size, grown);
      for (int64_t j = 0; j < kDoubles; ++j) {
        scratch_[2 * (first + j)] = static_cast<float>(size[j]);
        scratch_[2 * (first + j) + 1] = static_cast<float>(schedule_.eps * grown[j]);
      }
    }
    written_ = true;
  }

  const Schedule& schedule_;
  const int64_t last_step_;
  float* const scratch_;
  int64_t count_;           // terms of this row
  double start1_, start2_;  // beta^last_step
  float total_size_;        // S
  float mean_floor_;        // E
  float near_;              // for denominators below this the terms are added one by one
  mutable bool written_ = false;
};

}  // namespace
