// Maximal spans of a text that occur in the index, after OLMoTrace (Liu et al. 2025).
#pragma once

#include "score.hpp"

namespace infinigram {

struct SpanLimits {
  std::size_t min_tokens = 1;
  std::int64_t max_count = 10;
  std::uint64_t max_hits = 10;  // places returned of each span
};

struct Span {
  std::size_t begin = 0;
  std::size_t end = 0;
  std::int64_t count = 0;
  std::vector<Hit> hits;
};

// From the longest match at each position: cut behind the first delimiter that is not its last token; where word beginnings are given,
// begun at one and shortened until the following token is one; kept where it reaches further than every span before it, and is long
// and rare enough. `delimiters` and `beginnings` say so for each token of the text; an empty one means that there are none.
template <typename Token>
std::vector<Span> maximal_spans(const Engine<Token>& engine, Query<Token> text, const std::vector<std::size_t>& ends,
                                const std::vector<bool>& delimiters, const std::vector<bool>& beginnings, const SpanLimits& limits) {
  const std::size_t size = text.size();
  std::vector<std::size_t> next_delimiter(size + 1, size);
  for (std::size_t at = size; at-- > 0;) next_delimiter[at] = !delimiters.empty() && delimiters[at] ? at : next_delimiter[at + 1];
  std::vector<Span> spans;
  std::size_t reached = 0;
  for (std::size_t begin = 0; begin < size; ++begin) {
    if (!beginnings.empty() && !beginnings[begin]) continue;
    std::size_t end = std::min(ends[begin], next_delimiter[begin] + 1);
    while (!beginnings.empty() && end > begin && end < size && !beginnings[end]) --end;
    if (end <= reached || end <= begin) continue;
    reached = end;
    if (end - begin >= limits.min_tokens) spans.push_back({begin, end, 0, {}});
  }
  std::vector<Query<Token>> queries;
  for (const Span& span : spans) {
    queries.push_back(text.subspan(engine.reversed() ? size - span.end : span.begin, span.end - span.begin));
  }
  std::vector<std::vector<Range>> ranges(spans.size(), std::vector<Range>(engine.main()));
  search_all<Token>(engine, queries, engine.main(), Want::kRange,
                    [&](std::size_t q, std::size_t s, const Search<Token>& search) { ranges[q][s] = search.range(); });
  std::vector<std::int64_t> counts(spans.size(), 0);
  if (engine.any_removed()) count_all<Token>(engine, queries, counts.data());
  std::size_t kept = 0;
  for (std::size_t i = 0; i < spans.size(); ++i) {
    Span& span = spans[i];
    span.count = counts[i];
    for (const Range& range : ranges[i]) span.count += engine.any_removed() ? 0 : static_cast<std::int64_t>(range.size());
    if (span.count > limits.max_count) continue;
    std::uint64_t wanted = limits.max_hits;
    for (std::size_t s = 0; s < engine.main(); ++s) {
      const Shard<Token>& shard = engine.shard(s);
      for (std::uint64_t rank = ranges[i][s].begin; rank < ranges[i][s].end && wanted != 0; ++rank) {
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
