#include "pool.hpp"

#include <pthread.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <deque>
#include <exception>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

namespace infinigram {

namespace {

struct Job {
  std::size_t count, grain;
  const std::function<void(std::size_t, std::size_t)>* work;
  std::size_t helpers_wanted;
  std::atomic<std::size_t> next{0};
  std::size_t helpers = 0;  // guarded by the pool's mutex, as is `failure`
  std::exception_ptr failure;

  bool exhausted() const { return next.load(std::memory_order_relaxed) >= count; }
};

class Pool {
 public:
  void run(Job& job) {
    {
      const std::lock_guard lock(mutex_);
      while (workers_.size() < job.helpers_wanted) workers_.emplace_back([this] { serve(); });
      jobs_.push_back(&job);
    }
    wake_.notify_all();
    take_part(job);
    std::unique_lock lock(mutex_);
    std::erase(jobs_, &job);
    idle_.wait(lock, [&] { return job.helpers == 0; });
  }

 private:
  Job* open_job() {
    for (Job* job : jobs_) {
      if (!job->exhausted() && job->helpers < job->helpers_wanted) return job;
    }
    return nullptr;
  }

  [[noreturn]] void serve() {
    std::unique_lock lock(mutex_);
    while (true) {
      Job* job = nullptr;
      wake_.wait(lock, [&] { return (job = open_job()) != nullptr; });
      ++job->helpers;
      lock.unlock();
      take_part(*job);
      lock.lock();
      if (--job->helpers == 0) idle_.notify_all();
    }
  }

  void take_part(Job& job) {
    try {
      while (true) {
        const std::size_t begin = job.next.fetch_add(job.grain);
        if (begin >= job.count) return;
        (*job.work)(begin, std::min(job.count, begin + job.grain));
      }
    } catch (...) {
      job.next.store(job.count);
      const std::lock_guard lock(mutex_);
      if (!job.failure) job.failure = std::current_exception();
    }
  }

  std::mutex mutex_;
  std::condition_variable wake_, idle_;
  std::deque<Job*> jobs_;
  std::vector<std::thread> workers_;
};

std::atomic<std::size_t> wanted_threads{0};

// A forked child has none of the parent's threads and must not join them, so it abandons the parent's pool and makes its own; an
// exiting process abandons its pool as well, since the threads hold nothing that needs cleanup.
Pool*& current_pool() {
  static Pool* pool = nullptr;
  return pool;
}

Pool& pool() {
  static std::mutex making;
  const std::lock_guard lock(making);
  Pool*& current = current_pool();
  if (current == nullptr) {
    static const int registered = pthread_atfork(nullptr, nullptr, [] { current_pool() = nullptr; });
    (void)registered;
    current = std::make_unique<Pool>().release();
  }
  return *current;
}

}  // namespace

void set_threads(std::size_t count) { wanted_threads = count; }

std::size_t threads() {
  const std::size_t wanted = wanted_threads;
  return wanted != 0 ? wanted : std::max(1U, std::thread::hardware_concurrency());
}

void parallel_for(std::size_t count, std::size_t grain, const std::function<void(std::size_t, std::size_t)>& work) {
  const std::size_t pieces = (count + grain - 1) / grain;
  const std::size_t helpers = std::min(threads(), pieces) - (pieces == 0 ? 0 : 1);
  if (pieces <= 1 || helpers == 0) {
    if (count != 0) work(0, count);
    return;
  }
  Job job{count, grain, &work, helpers, {}, 0, {}};
  pool().run(job);
  if (job.failure) std::rethrow_exception(job.failure);
}

}  // namespace infinigram
