// Borders between tokens in a sorted range of suffixes, and the count of each token there.
#pragma once

#include <algorithm>
#include <array>
#include <vector>

#include "pool.hpp"
#include "radix.hpp"
#include "search/shard.hpp"

namespace infinigram {

// Reads the token `shift_bytes` after the suffix of every rank, with a few dozen memory accesses in flight. `inside` is false for
// ranks whose token would be outside the text.
template <typename Token, typename RankAt, typename Take>
void read_tokens(const Shard<Token>& shard, std::size_t count, std::int64_t shift_bytes, RankAt rank_at, Take take) {
  constexpr std::size_t kAhead = 24;
  std::array<std::uint64_t, kAhead> places;
  const auto outside = [&](std::uint64_t place) { return place > shard.text_bytes() - sizeof(Token); };
  for (std::size_t at = 0; at < count + 2 * kAhead; ++at) {
    if (at < count) shard.prefetch_entry(rank_at(at));
    if (at >= 2 * kAhead) {
      const std::size_t ready = at - 2 * kAhead;
      const std::uint64_t place = places[ready % kAhead];
      const bool inside = !outside(place);
      take(ready, inside, inside ? load_token<Token>(shard.text() + place) : Token{0});
    }
    if (at >= kAhead && at - kAhead < count) {
      const std::size_t ready = at - kAhead;
      // a shift before the start wraps to a huge number, which is also outside
      const std::uint64_t place = shard.pointer(rank_at(ready)) + static_cast<std::uint64_t>(shift_bytes);
      places[ready % kAhead] = place;
      if (!outside(place)) shard.prefetch_text(place);
    }
  }
}

// Counts the tokens at `depth` over a range whose suffixes agree in the first `depth` tokens. These are sorted by the token at
// depth, so only the borders between tokens are located, by bisection in waves whose memory accesses overlap. Known at the start
// are the ends of the range and, if the sampled keys reach that deep, every 64th rank. Adds to `counts` in byte order; returns
// how many suffixes end before `depth` (0 or 1). O(distinct * log(hits / distinct)) memory accesses.
template <typename Token>
class BorderSearch {
 public:
  BorderSearch(const Shard<Token>& shard, std::uint64_t depth) : shard_(shard), depth_(depth) {}

  std::int64_t run(Range range, TokenCounts& counts) {
    std::int64_t at_end = 0;
    if (range.size() != 0 && shard_.pointer(range.begin) + depth_ * sizeof(Token) >= shard_.text_bytes()) {
      ++range.begin;  // the shortest suffix sorts first
      at_end = 1;
    }
    if (range.size() == 0) return at_end;
    points_.clear();
    borders_.clear();
    collect_points(range);
    read_points();
    borders_.push_back(points_.front());
    gaps_.clear();
    for (std::size_t i = 1; i < points_.size(); ++i) open(points_[i - 1], points_[i]);
    while (!gaps_.empty()) wave();
    radix_sort(borders_, [&](const Point& border) { return border.rank - range.begin; });
    for (std::size_t i = 0; i < borders_.size(); ++i) {
      const std::uint64_t end = i + 1 < borders_.size() ? borders_[i + 1].rank : range.end;
      counts.emplace_back(borders_[i].token, static_cast<std::int64_t>(end - borders_[i].rank));
    }
    return at_end;
  }

 private:
  struct Point {
    std::uint64_t rank;
    Token token;
    bool guessed;  // from a sampled key, not read
  };
  struct Gap {
    Point low, high;
  };
  static constexpr std::uint64_t kAllRanks = 48;  // smaller ranges are read entirely

  void collect_points(Range range) {
    if (range.size() <= kAllRanks) {
      for (std::uint64_t rank = range.begin; rank < range.end; ++rank) points_.push_back({rank, Token{}, false});
      return;
    }
    points_.push_back({range.begin, Token{}, false});
    const std::uint64_t deep_bits = 8 * sizeof(Token) * (depth_ + 1);
    if (deep_bits <= 64 && shard_.samples() != 0) {
      for (std::uint64_t sample = range.begin / kStride + 1; sample * kStride + 1 < range.end; ++sample) {
        const Token token = order_key(static_cast<Token>(shard_.keys()[sample] >> (64 - deep_bits)));
        const std::size_t size = points_.size();
        if (size > 2 && points_[size - 1].token == token && points_[size - 2].token == token) {
          points_[size - 1].rank = sample * kStride;  // the ends of a run of equal guesses suffice
        } else {
          points_.push_back({sample * kStride, token, true});
        }
      }
    }
    points_.push_back({range.end - 1, Token{}, false});
  }

  // Reads the ends, then both points of every pair that differs, until no differing pair contains a guess. Damaged keys then have no
  // effect, since everything between two equal tokens that were read is that token.
  void read_points() {
    queue_.clear();
    for (std::size_t i = 0; i < points_.size(); ++i) {
      if (!points_[i].guessed) queue_.push_back(i);
    }
    read_queue();
    queue_.clear();
    for (std::size_t i = 1; i < points_.size(); ++i) {
      if (points_[i - 1].token == points_[i].token) continue;
      enqueue(i - 1);
      enqueue(i);
    }
    while (!queue_.empty()) {
      read_queue();
      std::swap(queue_, read_);
      queue_.clear();
      for (const std::size_t i : read_) {
        if (i > 0 && points_[i - 1].token != points_[i].token) enqueue(i - 1);
        if (i + 1 < points_.size() && points_[i + 1].token != points_[i].token) enqueue(i + 1);
      }
    }
  }

  void enqueue(std::size_t i) {
    if (!points_[i].guessed) return;
    points_[i].guessed = false;
    queue_.push_back(i);
  }

  void read_queue() {
    read_tokens(
        shard_, queue_.size(), static_cast<std::int64_t>(depth_ * sizeof(Token)),
        [&](std::size_t i) { return points_[queue_[i]].rank; },
        [&](std::size_t i, bool inside, Token token) { points_[queue_[i]].token = checked(inside, token); });
  }

  Token checked(bool inside, Token token) const {
    if (!inside) throw BadIndex("the table of " + shard_.path() + " is out of order; verify or rebuild the index");
    return token;
  }

  void open(const Point& low, const Point& high) {
    if (low.token == high.token) return;
    if (high.rank - low.rank == 1) {
      borders_.push_back(high);
    } else {
      gaps_.push_back({low, high});
    }
  }

  void wave() {
    std::swap(gaps_, wave_);
    gaps_.clear();
    const auto middle = [&](std::size_t i) { return wave_[i].low.rank + (wave_[i].high.rank - wave_[i].low.rank) / 2; };
    read_tokens(shard_, wave_.size(), static_cast<std::int64_t>(depth_ * sizeof(Token)), middle,
                [&](std::size_t i, bool inside, Token token) {
                  const Point found{middle(i), checked(inside, token), false};
                  open(wave_[i].low, found);
                  open(found, wave_[i].high);
                });
  }

  const Shard<Token>& shard_;
  std::uint64_t depth_;
  std::vector<Point> points_, borders_;
  std::vector<Gap> gaps_, wave_;
  std::vector<std::size_t> queue_, read_;
};

// Same, on the pool's threads for a large range; it is split into pieces, and a token that two pieces share is reported by each.
template <typename Token>
std::int64_t count_borders(const Shard<Token>& shard, std::uint64_t depth, Range range, TokenCounts& counts) {
  constexpr std::uint64_t kPiece = std::uint64_t{1} << 17;
  if (range.size() < 2 * kPiece) return BorderSearch<Token>(shard, depth).run(range, counts);
  const std::uint64_t pieces = std::min(range.size() / kPiece, std::uint64_t{4} * threads());
  std::vector<TokenCounts> found(pieces);
  std::vector<std::int64_t> ends(pieces);
  parallel_for(pieces, 1, [&](std::size_t first, std::size_t last) {
    for (std::size_t p = first; p < last; ++p) {
      const Range piece{range.begin + range.size() * p / pieces, range.begin + range.size() * (p + 1) / pieces};
      ends[p] = BorderSearch<Token>(shard, depth).run(piece, found[p]);
    }
  });
  for (const TokenCounts& piece : found) {
    for (const auto& [token, count] : piece) {
      if (!counts.empty() && counts.back().first == token) {
        counts.back().second += count;
      } else {
        counts.emplace_back(token, count);
      }
    }
  }
  return ends[0];
}

// Occurrences of every token of a shard, separators included; computed once, then cached.
template <typename Token>
const TokenCounts& unigrams(const Shard<Token>& shard) {
  return shard.unigrams([&] {
    TokenCounts counts;
    count_borders<Token>(shard, 0, {0, shard.tokens()}, counts);
    return counts;
  });
}

}  // namespace infinigram
