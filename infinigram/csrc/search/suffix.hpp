// The longest suffix of a prompt that occurs, and its counts with and without a continuation (infini-gram, Liu et al. 2024).
#pragma once

#include <algorithm>
#include <array>

#include "search/engine.hpp"

namespace infinigram {

// A prompt and the token after it, contiguous and in index order; returns suffixes of it.
template <typename Token>
class Prompt {
 public:
  // `whole` holds prompt + continuation in reading order, and is reversed if the index is.
  Prompt(std::vector<Token>& whole, bool reversed) : reversed_(reversed) {
    if (reversed) std::reverse(whole.begin(), whole.end());
    whole_ = Query<Token>(whole.data(), whole.size());
  }
  std::size_t tokens() const { return whole_.size() - 1; }
  Query<Token> suffix(std::size_t length) const { return whole_.subspan(reversed_ ? 1 : tokens() - length, length); }
  Query<Token> continued(std::size_t length) const { return whole_.subspan(reversed_ ? 0 : tokens() - length, length + 1); }

 private:
  bool reversed_;
  Query<Token> whole_;
};

struct SuffixMatch {
  std::size_t tokens = 0;
  std::int64_t count = 0;
};

// Narrows the length down in rounds of up to nine lengths whose searches are interleaved; the first round is dense at the short
// lengths that natural text has, and skips what a second round finds as fast. O(log length) rounds.
template <typename Token>
SuffixMatch longest_suffix(const Engine<Token>& engine, const Prompt<Token>& prompt) {
  static constexpr std::array<std::size_t, 5> kFirst = {3, 5, 7, 10, 24};
  constexpr std::size_t kRound = 9;
  SuffixMatch known{0, engine.tokens()};
  std::size_t too_long = prompt.tokens() + 1;
  std::array<std::size_t, kRound> lengths;
  std::array<Query<Token>, kRound> queries;
  for (bool first = true; known.tokens + 1 < too_long; first = false) {
    std::size_t used = 0;
    const std::size_t gap = too_long - known.tokens - 1;
    if (first) {
      for (const std::size_t length : kFirst) {
        if (length < prompt.tokens()) lengths[used++] = length;
      }
      lengths[used++] = prompt.tokens();
    } else {
      const std::size_t pieces = std::min(gap, kRound - 1);
      for (std::size_t piece = 1; piece <= pieces; ++piece) lengths[used++] = known.tokens + (gap + 1) * piece / (pieces + 1);
    }
    for (std::size_t i = 0; i < used; ++i) queries[i] = prompt.suffix(lengths[i]);
    std::array<std::int64_t, kRound> counts{};
    count_all<Token>(engine, std::span(queries.data(), used), counts.data());
    for (std::size_t i = 0; i < used; ++i) {
      if (counts[i] > 0 && lengths[i] > known.tokens) known = {lengths[i], counts[i]};
    }
    for (std::size_t i = 0; i < used; ++i) {
      if (counts[i] == 0) too_long = std::min(too_long, lengths[i]);
    }
    // only files that contradict one another can make a longer text more frequent than a part of it
    if (known.tokens >= too_long) throw BadIndex("the table of " + engine.shard(0).path() + " is out of order; verify the index");
  }
  return known;
}

}  // namespace infinigram
