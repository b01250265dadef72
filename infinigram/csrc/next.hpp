// Which tokens follow a prompt, and how often: exactly, and as the official engine approximates it.
#pragma once

#include <algorithm>

#include "engine.hpp"

namespace infinigram {

// The tokens that follow a prompt, ascending by id; the end of a document counts under the engine's eos.
struct NextTokens {
  std::int64_t prompt_count = 0;
  bool approximate = false;
  TokenCounts counts;
};

// Reads the token `shift_bytes` behind the suffix of every rank, a few dozen memory accesses at a time. Ranks where that lies outside
// of the text yield false in `inside`.
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
      // a shift before the start wraps to a huge number, which is outside too
      const std::uint64_t place = shard.pointer(rank_at(ready)) + static_cast<std::uint64_t>(shift_bytes);
      places[ready % kAhead] = place;
      if (!outside(place)) shard.prefetch_text(place);
    }
  }
}

// Counts the tokens at `depth` over a range whose suffixes agree in the first `depth` tokens: these are sorted by the token at depth,
// so only the borders between tokens are sought, by bisection in waves whose memory accesses overlap. Known to begin with are the
// range's ends and, where the sampled keys reach that deep, every 64th rank. Adds to `counts` by byte order; returns how many
// suffixes end before `depth` (0 or 1). O(distinct * log(hits / distinct)) memory accesses.
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
    std::sort(borders_.begin(), borders_.end(), [](const Point& a, const Point& b) { return a.rank < b.rank; });
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
    bool known;
  };
  struct Gap {
    Point low, high;
  };
  static constexpr std::uint64_t kAllRanks = 48;  // smaller ranges are read whole

  void collect_points(Range range) {
    if (range.size() <= kAllRanks) {
      for (std::uint64_t rank = range.begin; rank < range.end; ++rank) points_.push_back({rank, Token{}, false});
      return;
    }
    points_.push_back({range.begin, Token{}, false});
    const std::uint64_t deep_bits = 8 * sizeof(Token) * (depth_ + 1);
    if (deep_bits <= 64 && shard_.samples() != 0) {
      for (std::uint64_t sample = range.begin / kStride + 1; sample * kStride + 1 < range.end; ++sample) {
        const Token swapped = static_cast<Token>(shard_.keys()[sample] >> (64 - deep_bits));
        points_.push_back({sample * kStride, order_key(swapped), true});
      }
    }
    points_.push_back({range.end - 1, Token{}, false});
  }

  // Reads the tokens that are not known, and those that a key gives other than a neighbour has: a damaged key must not count.
  void read_points() {
    const std::size_t size = points_.size();
    unread_.clear();
    for (std::size_t i = 0; i < size; ++i) {
      const bool differs = (i > 0 && (!points_[i - 1].known || points_[i - 1].token != points_[i].token)) ||
                           (i + 1 < size && (!points_[i + 1].known || points_[i + 1].token != points_[i].token));
      if (!points_[i].known || differs) unread_.push_back(i);
    }
    read_tokens(
        shard_, unread_.size(), static_cast<std::int64_t>(depth_ * sizeof(Token)),
        [&](std::size_t i) { return points_[unread_[i]].rank; },
        [&](std::size_t i, bool inside, Token token) { points_[unread_[i]].token = checked(inside, token); });
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
                  const Point found{middle(i), checked(inside, token), true};
                  open(wave_[i].low, found);
                  open(found, wave_[i].high);
                });
  }

  const Shard<Token>& shard_;
  std::uint64_t depth_;
  std::vector<Point> points_, borders_;
  std::vector<Gap> gaps_, wave_;
  std::vector<std::size_t> unread_;
};

// Occurrences of every token of a shard, separators included; computed once, then kept.
template <typename Token>
const TokenCounts& unigrams(const Shard<Token>& shard) {
  return shard.unigrams([&] {
    TokenCounts counts;
    BorderSearch<Token>(shard, 0).run({0, shard.tokens()}, counts);
    return counts;
  });
}

// What stands before each hit, for reversed indexes: read one by one, or sought token by token where that is less.
template <typename Token>
std::int64_t count_before(const Shard<Token>& shard, Query<Token> query, Range range, TokenCounts& counts) {
  constexpr std::uint64_t kSearchCost = 30;  // in tokens read
  std::int64_t at_end = 0;
  if (range.size() < kSearchCost * 64 || range.size() / kSearchCost < unigrams(shard).size()) {
    std::vector<Token> seen;
    seen.reserve(range.size());
    read_tokens(
        shard, range.size(), -static_cast<std::int64_t>(sizeof(Token)), [&](std::size_t i) { return range.begin + i; },
        [&](std::size_t, bool inside, Token token) {
          if (inside) {
            seen.push_back(token);
          } else {
            ++at_end;
          }
        });
    std::sort(seen.begin(), seen.end());
    for (const Token token : seen) {
      if (!counts.empty() && counts.back().first == token) {
        ++counts.back().second;
      } else {
        counts.emplace_back(token, 1);
      }
    }
    return at_end;
  }
  const TokenCounts& vocabulary = unigrams(shard);
  std::vector<Token> longer((query.size() + 1) * vocabulary.size());
  for (std::size_t i = 0; i < vocabulary.size(); ++i) {
    Token* at = longer.data() + i * (query.size() + 1);
    *at = static_cast<Token>(vocabulary[i].first);
    std::copy(query.begin(), query.end(), at + 1);
  }
  at_end = static_cast<std::int64_t>(range.size());
  interleave<Search<Token>>(
      vocabulary.size(),
      [&](Search<Token>& search, std::size_t i) {
        search.start(shard, longer.data() + i * (query.size() + 1), query.size() + 1, Want::kRange);
      },
      [&](const Search<Token>& search, std::size_t i) {
        const auto hits = static_cast<std::int64_t>(search.range().size());
        if (hits != 0) counts.emplace_back(vocabulary[i].first, hits);
        at_end -= hits;
      });
  return at_end;
}

// Sorts by id, sums equal ids and drops what sums to nothing; separators become eos.
template <typename Token>
void settle(TokenCounts& counts, std::uint64_t eos) {
  for (auto& [token, count] : counts) {
    if (token == separator<Token>) token = eos;
  }
  std::sort(counts.begin(), counts.end());
  std::size_t used = 0;
  for (std::size_t i = 0; i < counts.size();) {
    auto sum = counts[i];
    for (++i; i < counts.size() && counts[i].first == sum.first; ++i) sum.second += counts[i].second;
    if (sum.second != 0) counts[used++] = sum;
  }
  counts.resize(used);
}

template <typename Token>
std::int64_t next_in_shard(const Engine<Token>& engine, const Shard<Token>& shard, Query<Token> query, Range range, TokenCounts& into) {
  if (query.empty()) {
    into = unigrams(shard);
    return 0;
  }
  if (engine.reversed()) return count_before(shard, query, range, into);
  return BorderSearch<Token>(shard, query.size()).run(range, into);
}

// Exact; see BorderSearch for the cost.
template <typename Token>
NextTokens next_tokens(const Engine<Token>& engine, Query<Token> query) {
  NextTokens next;
  const std::vector<Range> ranges = find_ranges(engine, query);
  if (engine.any_removed() && crosses_documents(query)) {
    for_each_hit(engine, query, ranges, [&](std::size_t s, std::uint64_t pointer) {
      const Shard<Token>& shard = engine.shard(s);
      const std::uint64_t place = engine.reversed() ? pointer - sizeof(Token) : pointer + query.size() * sizeof(Token);
      const bool inside = place < shard.text_bytes();
      next.counts.emplace_back(inside ? load_token<Token>(shard.text() + place) : separator<Token>, 1);
      ++next.prompt_count;
    });
  } else {
    for (std::size_t s = 0; s < engine.all(); ++s) {
      TokenCounts counts;
      const std::int64_t at_end = next_in_shard(engine, engine.shard(s), query, ranges[s], counts);
      for (const auto& [token, count] : counts) next.counts.emplace_back(token, engine.sign(s) * count);
      if (at_end != 0) next.counts.emplace_back(engine.eos(), engine.sign(s) * at_end);
      next.prompt_count += engine.sign(s) * static_cast<std::int64_t>(ranges[s].size());
    }
  }
  settle<Token>(next.counts, engine.eos());
  return next;
}

// The official estimate: one rank in the middle of every `unit` stands for all of them, the unit being the smallest power of two that
// needs at most `max_support` reads. Only forward indexes are sorted by the next token, so only they can be estimated this way.
template <typename Token>
class OfficialEstimate {
 public:
  OfficialEstimate(const Shard<Token>& shard, std::uint64_t depth, std::uint64_t unit, std::uint64_t eos)
      : shard_(shard), depth_(depth), unit_(unit), eos_(eos) {}

  void run(std::uint64_t begin, std::uint64_t end, TokenCounts& counts) const {
    if (begin == end) return;
    if (end - begin < 4 * unit_) {
      for (std::uint64_t rank = begin; rank < end; rank += unit_) {
        const bool whole = rank + unit_ <= end;
        counts.emplace_back(token(whole ? rank + unit_ / 2 : (rank + end) / 2), whole ? unit_ : end - rank);
      }
      return;
    }
    const std::uint64_t first = token(begin);
    if (first == token(end - 1)) {
      counts.emplace_back(first, end - begin);
      return;
    }
    const std::uint64_t middle = begin + (end - begin) / 2;
    run(begin, middle, counts);
    run(middle, end, counts);
  }

 private:
  std::uint64_t token(std::uint64_t rank) const {
    const std::uint64_t place = shard_.pointer(rank) + depth_ * sizeof(Token);
    if (place >= shard_.text_bytes()) return eos_;
    const Token found = load_token<Token>(shard_.text() + place);
    return found == separator<Token> ? eos_ : found;
  }

  const Shard<Token>& shard_;
  std::uint64_t depth_, unit_, eos_;
};

template <typename Token>
NextTokens estimate_next_tokens(const Engine<Token>& engine, Query<Token> query, std::uint64_t max_support) {
  NextTokens next;
  const std::vector<Range> ranges = find_ranges(engine, query);
  std::uint64_t hits = 0;
  for (std::size_t s = 0; s < engine.main(); ++s) hits += ranges[s].size();
  std::uint64_t unit = 1;
  while (unit < hits / max_support + (hits % max_support != 0)) unit *= 2;
  if (unit == 1 || engine.reversed() || engine.any_removed()) return next_tokens(engine, query);
  for (std::size_t s = 0; s < engine.main(); ++s) {
    OfficialEstimate<Token>(engine.shard(s), query.size(), unit, engine.eos()).run(ranges[s].begin, ranges[s].end, next.counts);
  }
  next.prompt_count = static_cast<std::int64_t>(hits);
  next.approximate = true;
  settle<Token>(next.counts, engine.eos());
  return next;
}

}  // namespace infinigram
