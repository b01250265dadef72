// The thread pool of the process: created by the first batch that can use it, shared by all.
#pragma once

#include <cstddef>
#include <functional>

namespace infinigram {

// Number of threads that a batch may use, including the caller's; 0 means one per processor.
void set_threads(std::size_t count);
std::size_t threads();

// Calls work(begin, end) for pieces of at most `grain` of 0 .. count, on the caller's thread and the pool's. The first exception
// is rethrown here once all started pieces have finished.
void parallel_for(std::size_t count, std::size_t grain, const std::function<void(std::size_t, std::size_t)>& work);

}  // namespace infinigram
