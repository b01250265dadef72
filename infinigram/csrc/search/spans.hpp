// Maximal spans of a text that occur in the index, after OLMoTrace (Liu et al. 2025).
#pragma once

#include "search/score.hpp"

namespace infinigram {

struct SpanLimits {
  std::size_t min_tokens = 1;
  std::int64_t max_count = 10;
  std::uint64_t max_hits = 10;  // positions returned per span
};

struct Span {
  std::size_t begin = 0;
  std::size_t end = 0;
  std::int64_t count = 0;
  std::vector<Hit> hits;
};

namespace spans_detail {

// For each position of a text in reading order the next one that holds a delimiter, or the size of the text after the last one.
template <typename Token>
std::vector<std::size_t> next_delimiters(const Engine<Token>& engine, Query<Token> text, const std::vector<Token>& delimiters) {
  const std::size_t size = text.size();
  std::vector<std::size_t> next(size + 1, size);
  for (std::size_t at = size; at-- > 0;) {
    const Token token = text[engine.reversed() ? size - 1 - at : at];
    next[at] = std::find(delimiters.begin(), delimiters.end(), token) != delimiters.end() ? at : next[at + 1];
  }
  return next;
}

// The bounds of spans, from the longest match at each position; see maximal_spans.
inline std::vector<Span> bounds(const std::vector<std::size_t>& ends, const std::vector<std::size_t>& next_delimiter,
                                const std::vector<bool>& beginnings, std::size_t min_tokens) {
  const std::size_t size = ends.size();
  std::vector<Span> spans;
  std::size_t reached = 0;
  for (std::size_t begin = 0; begin < size; ++begin) {
    if (!beginnings.empty() && !beginnings[begin]) continue;
    std::size_t end = std::min(ends[begin], next_delimiter[begin] + 1);
    while (!beginnings.empty() && end > begin && end < size && !beginnings[end]) --end;
    if (end <= reached || end <= begin) continue;
    reached = end;
    if (end - begin >= min_tokens) spans.push_back({begin, end, 0, {}});
  }
  return spans;
}

// The ranks around `nearest` that begin with a query; if any exist, `nearest` or the rank before it is one of them. Examines O(log of
// their number) suffixes; stops as soon as the range exceeds `most`.
template <typename Token>
Range range_near(const Shard<Token>& shard, std::uint64_t nearest, Query<Token> query, std::uint64_t most) {
  const auto matches = [&](std::uint64_t rank) {
    const std::uint64_t pointer = shard.pointer(rank);
    const std::uint64_t bytes = query.size_bytes();
    return shard.text_bytes() - pointer >= bytes && std::memcmp(shard.text() + pointer, query.data(), bytes) == 0;
  };
  // length of the run of matching ranks that starts at `next(0)`, at most `limit`
  const auto run = [&](auto next, std::uint64_t limit) {
    std::uint64_t low = 0;
    std::uint64_t width = 1;
    while (low + width <= limit && low <= most && matches(next(low + width - 1))) {
      low += width;
      width *= 2;
    }
    if (low > most) return low;
    std::uint64_t high = std::min(low + width - 1, limit);
    while (low < high) {
      const std::uint64_t middle = low + (high - low) / 2;
      if (matches(next(middle))) {
        low = middle + 1;
      } else {
        high = middle;
      }
    }
    return low;
  };
  const std::uint64_t below = run([&](std::uint64_t i) { return nearest - 1 - i; }, nearest);
  const std::uint64_t above = below > most ? 0 : run([&](std::uint64_t i) { return nearest + i; }, shard.tokens() - nearest);
  return {nearest - below, nearest + above};
}

// The range of each query in each shard: [queries, shards]. A range of more than `most` may be truncated. Each query begins at a
// position of the text with known `ranks`, or is searched.
template <typename Token>
std::vector<Range> ranges_of(const Engine<Token>& engine, const std::vector<Query<Token>>& queries, const std::vector<std::size_t>& positions,
                             const Ranks& ranks, std::uint64_t most) {
  const std::size_t shards = engine.main();
  std::vector<Range> ranges(queries.size() * shards);
  std::vector<std::size_t> searched;
  std::vector<Query<Token>> to_search;
  for (std::size_t i = 0; i < queries.size(); ++i) {
    if (ranks.nearest[positions[i] * shards] == Ranks::kNone) {
      searched.push_back(i);
      to_search.push_back(queries[i]);
      continue;
    }
    for (std::size_t s = 0; s < shards; ++s) {  // the first to be examined
      const std::uint64_t nearest = ranks.nearest[positions[i] * shards + s];
      const Shard<Token>& shard = engine.shard(s);
      for (std::uint64_t rank = nearest - std::min<std::uint64_t>(nearest, 2); rank < std::min(nearest + 2, shard.tokens()); ++rank) {
        shard.prefetch_text(shard.pointer(rank));
      }
    }
  }
  for (std::size_t i = 0; i < queries.size(); ++i) {
    for (std::size_t s = 0; s < shards; ++s) {
      const std::uint64_t nearest = ranks.nearest[positions[i] * shards + s];
      if (nearest != Ranks::kNone) ranges[i * shards + s] = range_near(engine.shard(s), nearest, queries[i], most);
    }
  }
  search_all<Token>(engine, to_search, shards, Want::kRange, [&](std::size_t q, std::size_t s, const Search<Token>& search) {
    ranges[searched[q] * shards + s] = search.range();
  });
  return ranges;
}

}  // namespace spans_detail

// From the longest match at each position: truncate after the first delimiter that is not its last token; if word beginnings are given,
// require a beginning at the start and shorten until the following token is one; keep the span if it extends beyond every earlier
// span and is long and rare enough. `delimiters` are tokens; `beginnings` has one flag per token of the text, or is empty.
template <typename Token>
std::vector<Span> maximal_spans(const Engine<Token>& engine, Query<Token> text, const std::vector<Token>& delimiters,
                                const std::vector<bool>& beginnings, const SpanLimits& limits) {
  Ranks ranks;
  std::vector<Span> spans = spans_detail::bounds(longest_matches(engine, text, &ranks),
                                                 spans_detail::next_delimiters(engine, text, delimiters), beginnings, limits.min_tokens);
  std::vector<Query<Token>> queries;
  std::vector<std::size_t> positions;
  for (const Span& span : spans) {
    positions.push_back(engine.reversed() ? text.size() - span.end : span.begin);
    queries.push_back(text.subspan(positions.back(), span.end - span.begin));
  }
  // removed documents must be distinguished, so all hits are needed
  const std::uint64_t most = engine.any_removed() ? std::numeric_limits<std::uint64_t>::max() : static_cast<std::uint64_t>(limits.max_count);
  const std::vector<Range> ranges = spans_detail::ranges_of<Token>(engine, queries, positions, ranks, most);
  std::vector<std::int64_t> counts(spans.size(), 0);
  if (engine.any_removed()) count_all<Token>(engine, queries, counts.data());
  std::size_t kept = 0;
  for (std::size_t i = 0; i < spans.size(); ++i) {
    Span& span = spans[i];
    const auto of_span = std::span(ranges).subspan(i * engine.main(), engine.main());
    span.count = counts[i];
    for (const Range& range : of_span) span.count += engine.any_removed() ? 0 : static_cast<std::int64_t>(range.size());
    if (span.count > limits.max_count) continue;
    std::uint64_t wanted = limits.max_hits;
    for (std::size_t s = 0; s < engine.main(); ++s) {
      const Shard<Token>& shard = engine.shard(s);
      for (std::uint64_t rank = of_span[s].begin; rank < of_span[s].end && wanted != 0; ++rank) {
        const std::uint64_t pointer = shard.pointer(rank);
        if (hits_removed(shard, pointer, queries[i])) continue;
        span.hits.push_back({s, pointer, 0, 0});
        --wanted;
      }
    }
    if (kept != i) spans[kept] = std::move(span);
    ++kept;
  }
  spans.resize(kept);
  return spans;
}

}  // namespace infinigram
