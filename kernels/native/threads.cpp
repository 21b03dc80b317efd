#include "threads.h"

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <thread>

namespace lord_fast {
namespace {

using Work = std::function<void(int64_t, int)>;

class Pool {
 public:
  void run(int64_t parts, int threads, const Work& work) {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      for (; sleepers_ < threads - 1; ++sleepers_) {
        std::thread(&Pool::serve, this, sleepers_ + 1).detach();
      }
      work_ = &work;
      parts_ = parts;
      slots_ = threads;
      next_ = 0;
      ++job_;
    }
    begun_.notify_all();
    take_parts(work, parts, 0);
    std::unique_lock<std::mutex> lock(mutex_);
    work_ = nullptr;  // a thread that wakes up late finds no work
    ended_.wait(lock, [this] { return busy_ == 0; });
  }

 private:
  void serve(int slot) {
    uint64_t seen = 0;
    std::unique_lock<std::mutex> lock(mutex_);
    for (;;) {
      begun_.wait(lock, [&] { return job_ != seen; });
      seen = job_;
      if (work_ == nullptr || slot >= slots_) continue;
      const Work& work = *work_;
      const int64_t parts = parts_;
      ++busy_;
      lock.unlock();
      take_parts(work, parts, slot);
      lock.lock();
      if (--busy_ == 0) ended_.notify_one();
    }
  }

  void take_parts(const Work& work, int64_t parts, int slot) {
    for (int64_t part = next_++; part < parts; part = next_++) work(part, slot);
  }

  std::mutex mutex_;
  std::condition_variable begun_, ended_;
  const Work* work_ = nullptr;  // null between jobs
  int64_t parts_ = 0;
  int slots_ = 0, sleepers_ = 0, busy_ = 0;
  uint64_t job_ = 0;
  std::atomic<int64_t> next_{0};
};

}  // namespace

void share(int64_t parts, int threads, const Work& work) {
  static Pool& pool = *new Pool;  // never destroyed, its threads end with the process
  static std::mutex one_caller;
  const std::unique_lock<std::mutex> lock(one_caller, std::try_to_lock);
  if (parts > 1 && threads > 1 && lock.owns_lock()) {
    pool.run(parts, threads, work);
  } else {
    for (int64_t part = 0; part < parts; ++part) work(part, 0);
  }
}

}  // namespace lord_fast
