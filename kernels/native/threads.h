// A pool of threads that sleep between calls.
#pragma once

#include <cstdint>
#include <functional>

namespace lord_fast {

// Calls work(part, slot) once for every part in [0, parts), on this thread and on at most
// `threads` - 1 others. `slot` is below `threads` and differs between threads that run at the same
// time. The result must not depend on which thread takes a part.
//
// The caller takes parts too and never waits for a thread that has not begun one. A call on a busy
// machine is therefore no slower than on one thread. OpenMP's barrier, in contrast, waits until
// every thread has been scheduled.
void share(int64_t parts, int threads, const std::function<void(int64_t, int)>& work);

}  // namespace lord_fast
