// CNF queries as the official engine counts them: the clauses are ordered per shard by their number of hits, every hit of the rarest is a
// match if the others, in that order, are close to it, and a hit counts once per matching term. So a count depends on other documents.
#pragma once

#include <numeric>

#include "search/occurrences.hpp"

namespace infinigram {

// Extends the span [left, right] of term starts by the nearest hits of each clause on both sides, at most `distance` tokens away;
// false if a clause has none. The span stays within the document, so hits beyond its border cannot hide a hit inside.
template <typename Token>
bool grow(const ReadingOrder<Token>& document, std::span<const Clause<Token>* const> clauses, std::int64_t distance,
          std::int64_t& left, std::int64_t right) {
  for (const Clause<Token>* clause : clauses) {
    std::int64_t before = right - 1;
    const std::int64_t first = std::max<std::int64_t>(0, left - distance);
    while (before >= first && !document.has_any(before, *clause)) --before;
    std::int64_t after = left;
    const std::int64_t last = std::min(document.size() - 1, right + distance);
    while (after <= last && !document.has_any(after, *clause)) ++after;
    if (before < first && after > last) return false;
    if (before >= first) left = std::min(left, before);
    if (after <= last) right = std::max(right, after);
  }
  return true;
}

template <typename Token>
class OfficialCnfSearch {
 public:
  OfficialCnfSearch(const Engine<Token>& engine, const std::vector<Clause<Token>>& clauses, const CnfLimits& limits)
      : engine_(engine), clauses_(clauses), limits_(limits) {
    const ClauseRanges<Token> ranges(engine, clauses);
    for (std::size_t s = 0; s < engine.main(); ++s) {
      std::vector<std::size_t> order(clauses.size());
      std::iota(order.begin(), order.end(), std::size_t{0});
      std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return ranges.hits(a, s) < ranges.hits(b, s); });
      rarest_.add(engine.shard(s), s, order.front(), ranges[order.front()]);
      others_.emplace_back();
      for (std::size_t i = 1; i < order.size(); ++i) others_.back().push_back(&clauses[order[i]]);
    }
  }

  // O(hits of the rarest clause, at most max_anchors, * clauses * distance) time; O(the same hits) memory.
  CnfResult run() {
    const std::uint64_t all = rarest_.size();
    const bool sampled = limits_.max_anchors != 0 && all > limits_.max_anchors;
    const std::uint64_t examined = sampled ? limits_.max_anchors : all;
    const Permutation order(all, limits_.seed);
    std::vector<Hit> found(examined);
    parallel_for(examined, 256, [&](std::size_t begin, std::size_t end) {
      for (std::size_t i = begin; i < end; ++i) found[i] = check(rarest_[sampled ? order(i) : i]);
    });
    std::erase_if(found, [](const Hit& hit) { return hit.shard == kNone; });
    for (std::size_t i = 0; i < found.size(); ++i) found[i].number = i;
    const std::int64_t count = sampled ? scaled(found.size(), all, examined) : static_cast<std::int64_t>(found.size());
    return {count, sampled, std::move(found)};
  }

 private:
  static constexpr std::uint64_t kNone = ~std::uint64_t{0};

  Hit check(const typename Occurrences<Token>::One& one) const {
    const Shard<Token>& shard = engine_.shard(one.shard);
    const Place place = shard.place_at(one.position_tokens);
    if (shard.is_removed(place.document)) return {kNone, 0, 0, 0};
    const ReadingOrder<Token> document(shard, place, engine_.reversed());
    const auto distance = static_cast<std::int64_t>(std::min<std::uint64_t>(limits_.max_distance_tokens, std::uint64_t{1} << 40));
    std::int64_t left = document.at(first_read(engine_, one.position_tokens, clauses_[one.clause][one.term].size()));
    if (!grow<Token>(document, others_[one.shard], distance, left, left)) return {kNone, 0, 0, 0};
    return {one.shard, document.position(left) * sizeof(Token), place.document, 0};
  }

  const Engine<Token>& engine_;
  const std::vector<Clause<Token>>& clauses_;
  CnfLimits limits_;
  Occurrences<Token> rarest_;
  std::vector<std::vector<const Clause<Token>*>> others_;  // [shard], from rarest to most frequent
};

}  // namespace infinigram
