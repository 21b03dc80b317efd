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

// Reads a row and prefetches row `ahead`, see row_ahead.
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
  const auto row_of = [&](int64_t b) { return task.rows[b]; };
  prefetch_first<false>(table, task.schedule, begin, end, row_of);
  for (int64_t b = begin; b < end; ++b) {
    const int64_t row = row_of(b), ahead = row_ahead(table, task.schedule, b, end, row_of);
    const Replay replay(task.schedule, table.last_step[row], scratch);
    float* codes = task.codes + b * table.dim;
    gather_row(table, row, replay, codes, ahead);
    if (task.std > 0) {
      add_noise(codes, table.dim, task.std, task.noise_ids[b], task.schedule.step, task.seed);
    }
  }
}

}  // namespace
