// Checks that a table is the suffix array of its text: every position once, in order.
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include "build/memory.hpp"
#include "build/order.hpp"
#include "build/text.hpp"
#include "tokens.hpp"

namespace infinigram::build {

// A table as a file of packed entries, mapped; raises BadIndex if its size does not match the text.
class Table {
 public:
  Table(const std::string& path, const Text& text) : bytes_(path, 1), path_(path), width_(text.width()), tokens_(text.tokens()) {
    if (tokens_ == 0 ? bytes_.bytes() != 0 : bytes_.bytes() % tokens_ != 0 || bytes_.bytes() / tokens_ > 8) {
      throw BadIndex(path + " has " + std::to_string(bytes_.bytes()) + " bytes, which does not match " + std::to_string(tokens_) +
                     " tokens; it is truncated or belongs to another text");
    }
    entry_bytes_ = tokens_ == 0 ? 1 : bytes_.bytes() / tokens_;
  }

  // The position (in tokens) of a rank; raises BadIndex if the entry points outside the text or between tokens.
  std::uint64_t position(std::uint64_t rank) const {
    const std::uint64_t entry = load_entry(bytes_.data() + rank * entry_bytes_, static_cast<int>(entry_bytes_));
    if (entry % width_ != 0 || entry / width_ >= tokens_) {
      fail(rank, "points to byte " + std::to_string(entry) + " of the text, which is not the start of a token");
    }
    return entry / width_;
  }

  [[noreturn]] void fail(std::uint64_t rank, const std::string& what) const {
    throw BadIndex(path_ + " is damaged: the entry of rank " + std::to_string(rank) + ", at byte " +
                   std::to_string(rank * entry_bytes_) + ", " + what);
  }

  std::uint64_t entries() const { return tokens_; }

 private:
  Text bytes_;
  std::string path_;
  std::uint64_t width_;
  std::uint64_t tokens_;
  std::uint64_t entry_bytes_ = 1;
};

inline constexpr std::uint64_t kCheckAhead = 24;

// Checks the whole table in O(tokens) using its inverse: neighbours with equal first tokens must be ordered like their continuations.
// Takes sizeof(Rank) bytes of memory per token.
template <typename Token, typename Rank>
void check_all(const Text& text, const Table& table, const std::function<void(std::uint64_t)>& report) {
  const std::uint64_t tokens = table.entries();
  HugeArray<Rank> rank_of(tokens + 1);  // from 1; the end of the text has 0
  for (std::uint64_t rank = 0; rank < tokens; ++rank) {
    if (rank + kCheckAhead < tokens) __builtin_prefetch(&rank_of[table.position(rank + kCheckAhead)], 1);
    Rank& slot = rank_of[table.position(rank)];
    if (slot != 0) table.fail(rank, "repeats that of rank " + std::to_string(slot - 1));
    slot = static_cast<Rank>(rank + 1);
    report(rank);
  }
  const auto key = [&](std::uint64_t at) { return order_key(load_token<Token>(text.data() + at * sizeof(Token))); };
  for (std::uint64_t rank = 1; rank < tokens; ++rank) {
    if (rank + kCheckAhead < tokens) {
      const std::uint64_t ahead = table.position(rank + kCheckAhead);
      text.fetch(ahead);
      __builtin_prefetch(&rank_of[ahead + 1]);
    }
    const std::uint64_t before = table.position(rank - 1);
    const std::uint64_t here = table.position(rank);
    const bool ordered = key(before) != key(here) ? key(before) < key(here) : rank_of[before + 1] < rank_of[here + 1];
    if (!ordered) table.fail(rank, "comes after a larger suffix");
    report(tokens + rank);
  }
}

// Checks `samples` random neighbours by comparing their suffixes; needs no memory.
inline void check_sample(const Text& text, const Table& table, std::uint64_t samples, std::uint64_t seed,
                         const std::function<void(std::uint64_t)>& report) {
  if (table.entries() < 2) return;
  SuffixOrder order(text);
  std::mt19937_64 random(seed);
  std::uniform_int_distribution<std::uint64_t> draw(1, table.entries() - 1);
  for (std::uint64_t sample = 0; sample < samples; ++sample) {
    const std::uint64_t rank = draw(random);
    const std::uint64_t before = table.position(rank - 1);
    const std::uint64_t here = table.position(rank);
    if (before == here || !order.before(before, here)) {
      table.fail(rank, "comes after a larger suffix");
    }
    report(sample);
  }
}

// The first eight bytes of every `stride`-th suffix, as integers that sort like the suffixes: the in-memory part of a search. The
// text may exceed the memory, so it is read from left to right, once per few million keys.
inline std::vector<std::uint64_t> sampled_keys(const Text& text, const Table& table, std::uint64_t stride) {
  struct Sample {
    std::uint64_t position, at;
  };
  constexpr std::uint64_t kTogether = std::uint64_t{1} << 21;
  std::vector<std::uint64_t> keys((table.entries() + stride - 1) / stride);
  std::vector<Sample> samples;
  for (std::uint64_t done = 0; done < keys.size(); done += samples.size()) {
    samples.clear();
    for (std::uint64_t at = done; at < std::min<std::uint64_t>(done + kTogether, keys.size()); ++at) {
      samples.push_back({table.position(at * stride), at});
    }
    std::sort(samples.begin(), samples.end(), [](const Sample& a, const Sample& b) { return a.position < b.position; });
    for (const Sample& sample : samples) keys[sample.at] = text.key(sample.position);
  }
  return keys;
}

}  // namespace infinigram::build
