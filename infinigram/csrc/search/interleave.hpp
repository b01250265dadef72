// Interleaves many small tasks on one thread.
#pragma once

#include <array>
#include <cstddef>

namespace infinigram {

// Runs `jobs` tasks, a few dozen at a time, interleaved so that the memory access of one overlaps the computation of others (AMAC,
// Kocberber et al. 2015). `begin(task, job)` starts a task, `finish(task, job)` takes its result.
template <typename Task, typename Begin, typename Finish>
void interleave(std::size_t jobs, Begin begin, Finish finish) {
  constexpr std::size_t kSlots = 32;
  std::array<Task, kSlots> tasks;
  std::array<std::size_t, kSlots> job;
  std::size_t running = jobs < kSlots ? jobs : kSlots;
  std::size_t started = running;
  for (std::size_t slot = 0; slot < running; ++slot) {
    job[slot] = slot;
    begin(tasks[slot], slot);
  }
  while (running != 0) {
    for (std::size_t slot = 0; slot < running;) {
      if (!tasks[slot].step()) {
        ++slot;
        continue;
      }
      finish(tasks[slot], job[slot]);
      if (started < jobs) {
        job[slot] = started;
        begin(tasks[slot], started++);
        ++slot;
      } else {
        --running;
        tasks[slot] = tasks[running];
        job[slot] = job[running];
      }
    }
  }
}

}  // namespace infinigram
