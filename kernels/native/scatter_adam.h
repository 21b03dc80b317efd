// scatter_adam_ sums the gradients of repeated rows, replays missed steps and applies Adam, in one
// pass over memory.
#pragma once

#include <cmath>
#include <cstdint>

#include "kernels.h"
#include "prefetch.h"
#include "replay.h"
#include "simd.h"

namespace {

using lord_fast::ScatterAdamTask;
using lord_fast::Table;

// Adam's update number step + 1 (Kingma & Ba, 2015, algorithm 1). The bias corrections are folded
// into the learning rate and epsilon.
class Update {
 public:
  explicit Update(const Schedule& s)
      : beta1_(static_cast<float>(s.beta1)),
        beta2_(static_cast<float>(s.beta2)),
        rest1_(static_cast<float>(1 - s.beta1)),
        rest2_(static_cast<float>(1 - s.beta2)) {
    const double t = static_cast<double>(s.step + 1);
    const double correction = std::sqrt(1 - std::pow(s.beta2, t));
    size_ = static_cast<float>(correction / (1 - std::pow(s.beta1, t)) * s.lr[s.step]);
    floor_ = static_cast<float>(s.eps * correction);
  }

  void apply(const Replay& replay, Float grad, Float& w, Float& m, Float& v) const {
    w -= replay.moved(m, root(v));
    m = beta1_ * (m * replay.decay1) + rest1_ * grad;
    v = beta2_ * (v * replay.decay2) + rest2_ * grad * grad;
    w -= size_ * m / (root(v) + floor_);
  }

 private:
  float beta1_, beta2_, rest1_, rest2_;
  float size_, floor_;
};

// Updates a row and prefetches row `ahead`, see row_ahead.
void update_row(const Table& table, int64_t row, const Replay& replay, const Update& update,
                const float* grad, int64_t ahead) {
  const int64_t offset = row * table.stride;
  float* weight = table.weight + offset;
  float* exp_avg = table.exp_avg + offset;
  float* exp_avg_sq = table.exp_avg_sq + offset;
  int64_t i = 0;
  for (; i + kLanes <= table.dim; i += kLanes) {
    prefetch_lines<true>(table, ahead, i);
    Float w = load(weight + i), m = load(exp_avg + i), v = load(exp_avg_sq + i);
    update.apply(replay, load(grad + i), w, m, v);
    store(weight + i, w);
    store(exp_avg + i, m);
    store(exp_avg_sq + i, v);
  }
  if (i < table.dim) {
    prefetch_lines<true>(table, ahead, i);
    const int64_t rest = table.dim - i;
    Float w = load(weight + i, rest), m = load(exp_avg + i, rest), v = load(exp_avg_sq + i, rest);
    update.apply(replay, load(grad + i, rest), w, m, v);
    store(weight + i, w, rest);
    store(exp_avg + i, m, rest);
    store(exp_avg_sq + i, v, rest);
  }
}

// The gradient of a segment's row. If the row repeats, its gradients are summed in batch order.
const float* segment_grad(const ScatterAdamTask& task, int64_t segment, float* summed) {
  const int64_t dim = task.table.dim;
  const int64_t first = task.starts[segment], last = task.starts[segment + 1];
  const float* grad = task.grad + task.order[first] * dim;
  if (last - first == 1) return grad;
  for (int64_t i = 0; i < dim; ++i) summed[i] = grad[i];
  for (int64_t at = first + 1; at < last; ++at) {
    grad = task.grad + task.order[at] * dim;
    for (int64_t i = 0; i < dim; ++i) summed[i] += grad[i];
  }
  return summed;
}

void scatter_adam(const ScatterAdamTask& task, int64_t begin, int64_t end, float* scratch) {
  const Table& table = task.table;
  const Update update(task.schedule);
  float* const summed = scratch + 2 * (task.schedule.terms + 8);
  const auto row_of = [&](int64_t segment) { return task.rows[task.order[task.starts[segment]]]; };
  prefetch_first<true>(table, task.schedule, begin, end, row_of);
  for (int64_t segment = begin; segment < end; ++segment) {
    const int64_t row = row_of(segment);
    const int64_t ahead = row_ahead(table, task.schedule, segment, end, row_of);
    const Replay replay(task.schedule, table.last_step[row], scratch);
    update_row(table, row, replay, update, segment_grad(task, segment, summed), ahead);
    table.last_step[row] = task.schedule.step + 1;
  }
}

}  // namespace
