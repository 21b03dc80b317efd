// Reads and writes scattered rows of a file in one call, so that Python's lock is released once and
// not once per row.
#include <cerrno>
#include <cstdint>

#include "lord_fast_kernels.h"

#if defined(_WIN32)

int lord_fast_read_rows(int, const int64_t*, int64_t, int64_t, char*) { return ENOSYS; }
int lord_fast_write_rows(int, const int64_t*, int64_t, int64_t, const char*) { return ENOSYS; }

#else

#include <fcntl.h>
#include <unistd.h>

namespace {

// Calls work(first place, number of rows) for each run of consecutive rows until one fails.
template <typename Work>
int each_run(const int64_t* rows, int64_t count, const Work& work) {
  for (int64_t begin = 0, end = 0; begin < count; begin = end) {
    for (end = begin + 1; end < count && rows[end] == rows[end - 1] + 1; ++end) {
    }
    const int status = work(begin, end - begin);
    if (status != 0) return status;
  }
  return 0;
}

// Calls move(bytes done, bytes left) until all bytes are moved. It returns what pread returns.
template <typename Move>
int move_all(int64_t bytes, const Move& move) {
  for (int64_t done = 0; done < bytes;) {
    const int64_t moved = move(done, bytes - done);
    if (moved == 0) return kFileTooShort;
    if (moved < 0 && errno != EINTR) return errno;
    if (moved > 0) done += moved;
  }
  return 0;
}

}  // namespace

int lord_fast_read_rows(int file, const int64_t* rows, int64_t count, int64_t row_bytes,
                        char* out) {
#if defined(POSIX_FADV_WILLNEED)
  // The system then reads all rows in parallel.
  each_run(rows, count, [&](int64_t at, int64_t length) {
    posix_fadvise(file, rows[at] * row_bytes, length * row_bytes, POSIX_FADV_WILLNEED);
    return 0;
  });
#endif
  return each_run(rows, count, [&](int64_t at, int64_t length) {
    return move_all(length * row_bytes, [&](int64_t done, int64_t left) {
      return pread(file, out + at * row_bytes + done, left, rows[at] * row_bytes + done);
    });
  });
}

int lord_fast_write_rows(int file, const int64_t* rows, int64_t count, int64_t row_bytes,
                         const char* values) {
  return each_run(rows, count, [&](int64_t at, int64_t length) {
    return move_all(length * row_bytes, [&](int64_t done, int64_t left) {
      return pwrite(file, values + at * row_bytes + done, left, rows[at] * row_bytes + done);
    });
  });
}

#endif
