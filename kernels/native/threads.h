// Work shared among threads that sleep between calls.
#pragma once

#include <cstdint>
#include <functional>

namespace lord_fast {

// Calls work(part, slot) once for every part in [0, parts), on this thread and on at most
// `threads` - 1 others. `slot` is below `threads` and tells threads that run at once apart.
//
// The caller takes parts too and never waits for a thread that has not begun one: on a machine
// whose cores are busy with something else a call takes as long as on one thread, not longer.
// (OpenMP's barrier waits for every thread to be scheduled.) Which thread takes a part must not
// matter to the result.
void share(int64_t parts, int threads, const std::function<void(int64_t, int)>& work);

}  // namespace lord_fast
