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

// The same for clauses with separators, as the official engine does it: a separator belongs to the document before it, hits are looked
// for across borders, and the nearest on a side, if it is in another document, hides those behind it. Positions of the shard's text.
template <typename Token>
class AcrossDocuments {
 public:
  AcrossDocuments(const Engine<Token>& engine, const Shard<Token>& shard) : shard_(shard), reversed_(engine.reversed()) {}

  bool grow(std::span<const Clause<Token>* const> clauses, std::int64_t distance, std::int64_t& left) const {
    const auto [begin, end] = document_of(left);
    std::int64_t right = left;
    for (const Clause<Token>* clause : clauses) {
      std::int64_t before = right - 1;
      const std::int64_t first = std::max<std::int64_t>(0, left - distance);
      while (before >= first && !has_any(before, *clause)) --before;
      std::int64_t after = left;
      const std::int64_t last = std::min(static_cast<std::int64_t>(shard_.tokens()) - 1, right + distance);
      while (after <= last && !has_any(after, *clause)) ++after;
      if (before < first && after > last) return false;
      if ((before >= first && before < begin) || (after <= last && after >= end)) return false;
      if (before >= first) left = std::min(left, before);
      if (after <= last) right = std::max(right, after);
    }
    return true;
  }

 private:
  // From the first token of a document to the separator behind it; the first separator is alone.
  std::pair<std::int64_t, std::int64_t> document_of(std::int64_t position) const {
    Place place = shard_.place_at(static_cast<std::uint64_t>(position));
    if (static_cast<std::uint64_t>(position) + 1 == place.begin) {
      if (position == 0) return {0, 1};
      place = shard_.place_at(static_cast<std::uint64_t>(position) - 1);
    }
    return {static_cast<std::int64_t>(place.begin), static_cast<std::int64_t>(place.end) + 1};
  }

  bool has_any(std::int64_t at, const Clause<Token>& clause) const {
    return std::any_of(clause.begin(), clause.end(), [&](const std::vector<Token>& term) {
      if (static_cast<std::uint64_t>(at) + term.size() > shard_.tokens()) return false;
      for (std::size_t i = 0; i < term.size(); ++i) {
        const Token wanted = reversed_ ? term[term.size() - 1 - i] : term[i];
        if (shard_.token(static_cast<std::uint64_t>(at) + i) != wanted) return false;
      }
      return true;
    });
  }

  const Shard<Token>& shard_;
  bool reversed_;
};

template <typename Token>
class OfficialCnfSearch {
 public:
  OfficialCnfSearch(const Engine<Token>& engine, const std::vector<Clause<Token>>& clauses, const CnfLimits& limits)
      : engine_(engine), clauses_(clauses), limits_(limits) {
    across_ = std::any_of(clauses.begin(), clauses.end(), [](const Clause<Token>& clause) {
      return std::any_of(clause.begin(), clause.end(), has_separator<Token>);
    });
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
    const auto distance = static_cast<std::int64_t>(std::min<std::uint64_t>(limits_.max_distance_tokens, std::uint64_t{1} << 40));
    if (across_) return check_across(one, shard, distance);
    const Place place = shard.place_at(one.position_tokens);
    if (shard.is_removed(place.document)) return {kNone, 0, 0, 0};
    const ReadingOrder<Token> document(shard, place, engine_.reversed());
    std::int64_t left = document.at(first_read(engine_, one.position_tokens, clauses_[one.clause][one.term].size()));
    if (!grow<Token>(document, others_[one.shard], distance, left, left)) return {kNone, 0, 0, 0};
    return {one.shard, document.position(left) * sizeof(Token), place.document, 0};
  }

  Hit check_across(const typename Occurrences<Token>::One& one, const Shard<Token>& shard, std::int64_t distance) const {
    std::vector<Token> term = clauses_[one.clause][one.term];
    if (engine_.reversed()) std::reverse(term.begin(), term.end());
    auto left = static_cast<std::int64_t>(one.position_tokens);
    if (hits_removed<Token>(shard, one.position_tokens * sizeof(Token), term)) return {kNone, 0, 0, 0};
    if (!AcrossDocuments<Token>(engine_, shard).grow(others_[one.shard], distance, left)) return {kNone, 0, 0, 0};
    const auto position = static_cast<std::uint64_t>(left);
    return {one.shard, position * sizeof(Token), shard.place_at(position).document, 0};
  }

  const Engine<Token>& engine_;
  const std::vector<Clause<Token>>& clauses_;
  CnfLimits limits_;
  bool across_ = false;
  Occurrences<Token> rarest_;
  std::vector<std::vector<const Clause<Token>*>> others_;  // [shard], from rarest to most frequent
};

}  // namespace infinigram
