// Search in the sampled keys of a shard, in steps of one memory access each.
#pragma once

#include <algorithm>
#include <cstdint>

#include "search/shard.hpp"

namespace infinigram {

// Finds the samples whose key is in [`key`, `last_key`]. Keys are adjacent in memory, so the last few are searched in one step.
class KeySearch {
 public:
  void start(const std::uint64_t* keys, Range samples, std::uint64_t key, std::uint64_t last_key) {
    keys_ = keys;
    key_ = key;
    last_key_ = last_key;
    low_ = samples.begin;
    high_ = limit_ = samples.end;
    __builtin_prefetch(keys_ + (low_ + high_) / 2);
  }

  // Returns whether the search is finished.
  bool step() {
    if (high_ - low_ > kNearKeys) {
      const std::uint64_t middle = low_ + (high_ - low_) / 2;
      if (keys_[middle] < key_) {
        low_ = middle + 1;
      } else {
        high_ = middle;
      }
      __builtin_prefetch(keys_ + low_ + (high_ - low_) / 2);
      return false;
    }
    first_ = first_key(low_, high_, [this](std::uint64_t key) { return key < key_; });
    // most queries match few samples, so gallop
    std::uint64_t low = first_;
    std::uint64_t width = 1;
    while (low + width <= limit_ && keys_[low + width - 1] <= last_key_) {
      low += width;
      width *= 2;
    }
    last_ = first_key(low, std::min(low + width - 1, limit_), [this](std::uint64_t key) { return key <= last_key_; });
    return true;
  }

  // The samples found are [first, last), of those before `limit`.
  std::uint64_t first() const { return first_; }
  std::uint64_t last() const { return last_; }
  std::uint64_t limit() const { return limit_; }

 private:
  static constexpr std::uint64_t kNearKeys = 256;  // fewer are searched without yielding to other searches

  // The first of the keys [low, high) that is not `before`, branch-free.
  template <typename Before>
  std::uint64_t first_key(std::uint64_t low, std::uint64_t high, Before before) const {
    while (low < high) {
      const std::uint64_t half = (high - low) / 2;
      const bool up = before(keys_[low + half]);
      high = up ? high : low + half;
      low = up ? low + half + 1 : low;
    }
    return low;
  }

  const std::uint64_t* keys_;
  std::uint64_t key_, last_key_, low_, high_, limit_, first_, last_;
};

}  // namespace infinigram
