// Every position of a text at once: the length of the match in the index from there, and the infini-gram probability.
#pragma once

#include <algorithm>

#include "search/engine.hpp"

namespace infinigram {

// Where the searches of `match_ends` ended: for each position of a text and each shard, the rank of a suffix with the longest match
// of the text from there, or the rank after it; kNone if nothing was searched.
struct Ranks {
  static constexpr std::uint64_t kNone = std::numeric_limits<std::uint64_t>::max();
  std::vector<std::uint64_t> nearest;  // [positions, shards]
};

namespace score_detail {

// Grids of 0 .. count: first every multiple of a power of two, then the midpoints, so that a midpoint between two equal ends is
// skipped. The first grid is coarse for a long text, and fine enough to keep the searches interleaved.
inline std::size_t first_stride(std::size_t count) {
  std::size_t stride = 1;
  while (stride < 1024 && stride * 64 < count) stride *= 2;
  return stride;
}

// The longest prefix of `query` that occurs outside removed documents, given that `longest` tokens of it occur somewhere.
template <typename Token>
std::size_t longest_kept(const Engine<Token>& engine, Query<Token> query, std::size_t longest) {
  std::size_t low = 0;
  std::size_t high = longest;
  while (low < high) {
    const std::size_t middle = low + (high - low + 1) / 2;
    if (count_one(engine, query.first(middle)) > 0) {
      low = middle;
    } else {
      high = middle - 1;
    }
  }
  return low;
}

// Sets ends[position] for the given positions; each query starts there and bounds the length of its match.
template <typename Token>
void match_at(const Engine<Token>& engine, std::span<const std::size_t> positions, std::span<const Query<Token>> queries,
              std::vector<std::size_t>& ends, Ranks* ranks) {
  parallel_for(positions.size(), 2048, [&](std::size_t begin, std::size_t end) {
    for (std::size_t i = begin; i < end; ++i) ends[positions[i]] = positions[i];
    search_all<Token>(engine, queries.subspan(begin, end - begin), engine.main(), Want::kLongest,
                      [&](std::size_t q, std::size_t s, const Search<Token>& search) {
                        const std::size_t position = positions[begin + q];
                        ends[position] = std::max(ends[position], position + search.longest_tokens());
                        if (ranks != nullptr) ranks->nearest[position * engine.main() + s] = search.nearest_rank();
                      });
    if (!engine.any_removed()) return;
    for (std::size_t i = begin; i < end; ++i) {
      ends[positions[i]] = positions[i] + longest_kept(engine, queries[i], ends[positions[i]] - positions[i]);
    }
  });
}

}  // namespace score_detail

// For every position of a text in index order, the largest end such that text[position:end] occurs; one more entry for the end itself.
// These ends never decrease, so one search per position suffices, and none between two positions with the same end.
template <typename Token>
std::vector<std::size_t> match_ends(const Engine<Token>& engine, Query<Token> text, Ranks* ranks = nullptr) {
  const std::size_t size = text.size();
  if (ranks != nullptr) ranks->nearest.assign(size * engine.main(), Ranks::kNone);
  std::vector<std::size_t> ends(size + 1, size);
  std::vector<std::size_t> positions;
  std::vector<Query<Token>> queries;
  const std::size_t first = score_detail::first_stride(size);
  for (std::size_t stride = first; stride != 0; stride /= 2) {
    positions.clear();
    queries.clear();
    for (std::size_t at = stride == first ? 0 : stride; at < size; at += stride == first ? stride : 2 * stride) {
      const std::size_t before = at - stride;
      const std::size_t after = std::min(at + stride, size);
      if (stride != first && ends[before] == ends[after]) {
        ends[at] = ends[after];
        continue;
      }
      positions.push_back(at);
      queries.push_back(text.subspan(at, (stride == first ? size : ends[after]) - at));
    }
    score_detail::match_at<Token>(engine, positions, queries, ends, ranks);
  }
  return ends;
}

// Converts ends of matches to starts of suffixes, for forward indexes; two pointers, O(size).
// starts[i] = smallest l with ends[l] >= i.
inline std::vector<std::size_t> starts_of(const std::vector<std::size_t>& ends) {
  std::vector<std::size_t> starts(ends.size());
  std::size_t start = 0;
  for (std::size_t at = 0; at < ends.size(); ++at) {
    while (ends[start] < at) ++start;
    starts[at] = start;
  }
  return starts;
}

// Same, for reversed documents matched in reverse: position i of the text is size - i there, and its match extends backwards.
inline std::vector<std::size_t> starts_of_reversed(const std::vector<std::size_t>& ends) {
  const std::size_t size = ends.size() - 1;
  std::vector<std::size_t> starts(ends.size());
  for (std::size_t at = 0; at <= size; ++at) starts[at] = size - ends[size - at];
  return starts;
}

// For every position, the start of the longest matching suffix before it (size + 1 entries, never decreasing).
template <typename Token>
std::vector<std::size_t> suffix_starts(const Engine<Token>& engine, Query<Token> text) {
  const std::vector<std::size_t> ends = match_ends(engine, text);
  return engine.reversed() ? starts_of_reversed(ends) : starts_of(ends);
}

// For every position l the largest r such that the tokens [l, r) in reading order occur (`creativity`); `ranks` is in index order.
template <typename Token>
std::vector<std::size_t> longest_matches(const Engine<Token>& engine, Query<Token> text, Ranks* ranks = nullptr) {
  std::vector<std::size_t> ends = match_ends(engine, text, ranks);
  if (engine.reversed()) {
    const std::vector<std::size_t> starts = starts_of_reversed(ends);
    std::size_t at = 0;
    for (std::size_t l = 0; l < text.size(); ++l) {
      at = std::max(at, l);
      while (at < text.size() && starts[at + 1] <= l) ++at;
      ends[l] = at;
    }
  }
  ends.pop_back();
  return ends;
}

struct Scores {
  std::vector<std::int64_t> suffix_tokens, prompt_counts, continuation_counts;
};

// For every position i: the longest suffix of text[:i] that occurs, its count, and its count followed by text[i]. Counts for
// one suffix start never increase, so equal counts at two positions apply to all positions between them.
template <typename Token>
Scores score(const Engine<Token>& engine, Query<Token> text) {
  const std::size_t size = text.size();
  const std::vector<std::size_t> starts = suffix_starts(engine, text);
  std::vector<std::int64_t> counts(size + 1, 0);
  const auto piece = [&](std::size_t at) {
    const std::size_t from = engine.reversed() ? size - at : starts[at];
    return text.subspan(from, at - starts[at]);
  };
  std::vector<std::size_t> positions;
  std::vector<Query<Token>> queries;
  std::vector<std::int64_t> found;
  const std::size_t first = score_detail::first_stride(size + 1);
  for (std::size_t stride = first; stride != 0; stride /= 2) {
    positions.clear();
    queries.clear();
    for (std::size_t at = stride == first ? 0 : stride; at <= size; at += stride == first ? stride : 2 * stride) {
      const std::size_t before = at - stride;
      const std::size_t after = at + stride;
      if (stride != first && after <= size && starts[before] == starts[after] && counts[before] == counts[after]) {
        counts[at] = counts[after];
        continue;
      }
      positions.push_back(at);
      queries.push_back(piece(at));
    }
    found.assign(queries.size(), 0);
    count_batch<Token>(engine, queries, found.data());
    for (std::size_t i = 0; i < positions.size(); ++i) counts[positions[i]] = found[i];
  }
  Scores scores{std::vector<std::int64_t>(size), std::vector<std::int64_t>(size), std::vector<std::int64_t>(size)};
  for (std::size_t at = 0; at < size; ++at) {
    scores.suffix_tokens[at] = static_cast<std::int64_t>(at - starts[at]);
    scores.prompt_counts[at] = counts[at];
    scores.continuation_counts[at] = starts[at + 1] == starts[at] ? counts[at + 1] : 0;
  }
  return scores;
}

}  // namespace infinigram
