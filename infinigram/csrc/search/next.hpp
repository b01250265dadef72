// The tokens that follow a prompt and their counts: exact, or approximated like the official engine.
#pragma once

#include <algorithm>

#include "search/engine.hpp"

namespace infinigram {

// The tokens that follow a prompt, ascending by id; the end of a document counts under the engine's eos.
struct NextTokens {
  std::int64_t prompt_count = 0;
  bool approximate = false;
  TokenCounts counts;
};

// The token before each hit, for reversed indexes: read hit by hit, or searched token by token if that is cheaper.
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
        search.start(shard, longer.data() + i * (query.size() + 1), query.size() + 1, Want::kRange, false);
      },
      [&](const Search<Token>& search, std::size_t i) {
        const auto hits = static_cast<std::int64_t>(search.range().size());
        if (hits != 0) counts.emplace_back(vocabulary[i].first, hits);
        at_end -= hits;
      });
  return at_end;
}

// The marker for "after the last token of a shard". It must not compare as a separator: a range from an end of shard to a separator
// contains other tokens, which the official engine misses.
inline constexpr std::uint64_t kShardEnd = ~std::uint64_t{0};

// Sorts by id, sums equal ids and drops zero sums; separators become eos.
template <typename Token>
void settle(TokenCounts& counts, std::uint64_t eos) {
  for (auto& [token, count] : counts) {
    if (token == separator<Token> || token == kShardEnd) token = eos;
  }
  radix_sort(counts, [](const std::pair<std::uint64_t, std::int64_t>& entry) { return entry.first; });
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
  return count_borders<Token>(shard, query.size(), range, into);
}

// Exact; see BorderSearch for the cost.
template <typename Token>
NextTokens next_tokens(const Engine<Token>& engine, Query<Token> query) {
  NextTokens next;
  const std::vector<Range> ranges = find_ranges(engine, query);
  const bool at_border = engine.reversed() && !query.empty() && query[0] == separator<Token>;
  if (engine.any_removed() && (at_border || crosses_documents(query))) {
    for_each_hit(engine, query, ranges, [&](std::size_t s, std::uint64_t pointer) {
      const Shard<Token>& shard = engine.shard(s);
      const std::uint64_t place = engine.reversed() ? pointer - sizeof(Token) : pointer + query.size() * sizeof(Token);
      const bool inside = place < shard.text_bytes() && !shard.is_removed(shard.place_at(place / sizeof(Token)).document);
      next.counts.emplace_back(inside ? load_token<Token>(shard.text() + place) : separator<Token>, 1);
      ++next.prompt_count;
    });
  } else {
    for (std::size_t s = 0; s < engine.all(); ++s) {
      TokenCounts counts;
      const std::int64_t at_end = next_in_shard(engine, engine.shard(s), query, ranges[s], counts);
      for (const auto& [token, count] : counts) next.counts.emplace_back(token, engine.sign(s) * count);
      if (at_end != 0) next.counts.emplace_back(kShardEnd, engine.sign(s) * at_end);
      next.prompt_count += engine.sign(s) * static_cast<std::int64_t>(ranges[s].size());
    }
  }
  settle<Token>(next.counts, engine.eos());
  return next;
}

// The official estimate: one rank in the middle of every `unit` represents all of them; the unit is the smallest power of two that
// needs at most `max_support` reads. Only forward indexes are sorted by the next token, so only they support it.
template <typename Token>
class OfficialEstimate {
 public:
  OfficialEstimate(const Shard<Token>& shard, std::uint64_t depth, std::uint64_t unit)
      : shard_(shard), depth_(depth), unit_(unit) {}

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
    return place >= shard_.text_bytes() ? kShardEnd : load_token<Token>(shard_.text() + place);
  }

  const Shard<Token>& shard_;
  std::uint64_t depth_, unit_;
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
    OfficialEstimate<Token>(engine.shard(s), query.size(), unit).run(ranges[s].begin, ranges[s].end, next.counts);
  }
  next.prompt_count = static_cast<std::int64_t>(hits);
  next.approximate = true;
  settle<Token>(next.counts, engine.eos());
  return next;
}

}  // namespace infinigram
