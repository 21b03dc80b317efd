// gather reads rows as of the current step and adds noise, in one pass over their memory.
#pragma once

#include <cstdint>

#include "kernels.h"
#include "noise.h"
#include "prefetch.h"
#include "replay.h"
#include "simd.h"

namespace {

using lord_fast::GatherTask;
using lord_fast::Table;

// Reads a row. Meanwhile it prefetches row `ahead`, a few lines at a time, because a core waits as
// soon as it has too many lines under way.
void gather_row(const Table& table, int64_t row, const Replay& replay, float* codes,
                int64_t ahead) {
  const int64_t offset = row * table.stride;
  const float* weight = table.weight + offset;
  const float* exp_avg = table.exp_avg + offset;
  const float* exp_avg_sq = table.exp_avg_sq + offset;
  int64_t i = 0;
  for (; i + kLanes <= table.dim; i += kLanes) {
    prefetch_lines<false>(table, ahead, i);
    const Float moved = replay.moved(load(exp_avg + i), root(load(exp_avg_sq + i)));
    store(codes + i, load(weight + i) - moved);
  }
  if (i < table.dim) {
    prefetch_lines<false>(table, ahead, i);
    const int64_t rest = table.dim - i;
    const Float moved = replay.moved(load(exp_avg + i, rest), root(load(exp_avg_sq + i, rest)));
    store(codes + i, load(weight + i, rest) - moved, rest);
  }
}

void gather(const GatherTask& task, int64_t begin, int64_t end, float* scratch) {
  const Table& table = task.table;
  for (int64_t b = begin; b < end && b < begin + kFar; ++b) translate(table, task.rows[b]);
  for (int64_t b = begin; b < end && b < begin + kAhead; ++b) {
    prefetch<false>(table, task.schedule, task.rows[b]);
  }
  for (int64_t b = begin; b < end; ++b) {
    if (b + kFar < end) translate(table, task.rows[b + kFar]);
    const int64_t row = task.rows[b], ahead = task.rows[b + kAhead < end ? b + kAhead : b];
    prefetch_rates(task.schedule, table.last_step[ahead]);
    const Replay replay(task.schedule, table.last_step[row], scratch);
    float* codes = task.codes + b * table.dim;
    gather_row(table, row, replay, codes, ahead);
    if (task.std > 0) {
      add_noise(codes, table.dim, task.std, task.noise_ids[b], task.schedule.step, task.seed);
    }
  }
}

}  // namespace
