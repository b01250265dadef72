// The one pool of threads of the process: made by the first batch that can use it, shared by all.
#pragma once

#include <cstddef>
#include <functional>

namespace infinigram {

// How many threads a batch may run on, the caller's own included; 0 asks for as many as there are processors.
void set_threads(std::size_t count);
std::size_t threads();

// Calls work(begin, end) for pieces of at most `grain` of 0 .. count, on the caller's thread and the pool's. The first exception is
// thrown again here when every piece that had begun is over.
void parallel_for(std::size_t count, std::size_t grain, const std::function<void(std::size_t, std::size_t)>& work);

}  // namespace infinigram
