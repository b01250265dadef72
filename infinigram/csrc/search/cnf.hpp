// CNF queries: all clauses must occur close together in one document; a clause matches if any of its terms does.
#pragma once

#include <algorithm>
#include <array>
#include <optional>

#include "search/sample.hpp"

namespace infinigram {

template <typename Token>
using Clause = std::vector<std::vector<Token>>;  // terms, in reading order

struct CnfLimits {
  std::uint64_t max_distance_tokens = 100;
  std::uint64_t max_anchors = 0;  // 0: no limit, exact
  std::uint64_t seed = 0;
  bool official = false;  // order clauses per shard, and count a hit once per matching term
};

struct CnfResult {
  std::int64_t count = 0;
  bool approximate = false;
  std::vector<Hit> hits;  // the leftmost token of each match
};

// A document in reading order, for forward and reversed indexes.
template <typename Token>
class ReadingOrder {
 public:
  ReadingOrder(const Shard<Token>& shard, const Place& place, bool reversed) : shard_(shard), place_(place), reversed_(reversed) {}
  std::int64_t size() const { return static_cast<std::int64_t>(place_.end - place_.begin); }
  Token operator[](std::int64_t at) const { return shard_.token(position(at)); }
  std::uint64_t position(std::int64_t at) const {
    return reversed_ ? place_.end - 1 - static_cast<std::uint64_t>(at) : place_.begin + static_cast<std::uint64_t>(at);
  }
  // Start of a term with `term_tokens` tokens that was found at a position of the shard.
  std::int64_t start_of(std::uint64_t position_tokens, std::size_t term_tokens) const {
    return static_cast<std::int64_t>(reversed_ ? place_.end - position_tokens - term_tokens : position_tokens - place_.begin);
  }

 private:
  const Shard<Token>& shard_;
  Place place_;
  bool reversed_;
};

template <typename Token>
bool matches_at(const ReadingOrder<Token>& document, const Clause<Token>& clause, std::int64_t at) {
  for (const std::vector<Token>& term : clause) {
    if (at + static_cast<std::int64_t>(term.size()) > document.size() || document[at] != term[0]) continue;
    std::size_t same = 1;
    while (same < term.size() && document[at + static_cast<std::int64_t>(same)] == term[same]) ++same;
    if (same == term.size()) return true;
  }
  return false;
}

// Extends the span [left, right] of term starts by the nearest hits of each clause on both sides, at most `distance` tokens away;
// false if a clause has none. The span stays within the document, so hits beyond its border cannot hide a hit inside.
template <typename Token>
bool grow(const ReadingOrder<Token>& document, std::span<const Clause<Token>* const> clauses, std::int64_t distance,
          std::int64_t& left, std::int64_t right) {
  for (const Clause<Token>* clause : clauses) {
    std::int64_t before = right - 1;
    const std::int64_t first = std::max<std::int64_t>(0, left - distance);
    while (before >= first && !matches_at(document, *clause, before)) --before;
    std::int64_t after = left;
    const std::int64_t last = std::min(document.size() - 1, right + distance);
    while (after <= last && !matches_at(document, *clause, after)) ++after;
    if (before < first && after > last) return false;
    if (before >= first) left = std::min(left, before);
    if (after <= last) right = std::max(right, after);
  }
  return true;
}

template <typename Token>
class CnfSearch {
 public:
  CnfSearch(const Engine<Token>& engine, const std::vector<Clause<Token>>& clauses, const CnfLimits& limits)
      : engine_(engine), clauses_(clauses), limits_(limits), ranges_(clauses.size()), turned_(clauses) {
    for (std::size_t c = 0; c < clauses_.size(); ++c) {
      for (std::vector<Token>& term : turned_[c]) {
        if (std::find(term.begin(), term.end(), separator<Token>) != term.end()) {
          throw BadQuery("a term of a CNF query cannot contain the document separator; leave it out");
        }
        if (engine.reversed()) std::reverse(term.begin(), term.end());
        ranges_[c].push_back(find_ranges<Token>(engine, term));
      }
    }
  }

  // O(hits of the rarest clause * clauses * distance) at most; the other clauses are searched in the text around these hits.
  CnfResult run() {
    CnfResult result;
    for (std::size_t s = 0; s < engine_.main(); ++s) {
      if (s == 0 || limits_.official) choose_order(s);
      collect_anchors(s);
    }
    const std::uint64_t all = anchors_.size();
    std::uint64_t examined = all;
    if (limits_.max_anchors != 0 && all > limits_.max_anchors) {
      sample_anchors();
      examined = limits_.max_anchors;
      result.approximate = true;
    }
    check_anchors();
    for (const Anchor& anchor : anchors_) {
      if (anchor.matched) result.hits.push_back({anchor.shard, anchor.pointer_bytes, anchor.document, result.hits.size()});
    }
    result.count = static_cast<std::int64_t>(result.hits.size());
    if (result.approximate) {
      const double scaled = static_cast<double>(result.count) * static_cast<double>(all) / static_cast<double>(examined);
      result.count = static_cast<std::int64_t>(scaled + 0.5);
    }
    return result;
  }

 private:
  struct Anchor {
    std::uint64_t shard, pointer_bytes, term_tokens, document;
    std::size_t order;  // which of `orders_`
    bool matched;
  };

  std::uint64_t hits(std::size_t clause, std::size_t shard) const {
    std::uint64_t sum = 0;
    for (const std::vector<Range>& term : ranges_[clause]) sum += term[shard].size();
    return sum;
  }

  // Orders the clauses from rarest to most frequent, over all shards or in one.
  void choose_order(std::size_t shard) {
    std::vector<std::pair<std::int64_t, std::size_t>> order;
    for (std::size_t c = 0; c < clauses_.size(); ++c) {
      std::int64_t sum = 0;
      if (limits_.official) {
        sum = static_cast<std::int64_t>(hits(c, shard));
      } else {
        for (std::size_t s = 0; s < engine_.all(); ++s) sum += engine_.sign(s) * static_cast<std::int64_t>(hits(c, s));
      }
      order.emplace_back(sum, c);
    }
    std::sort(order.begin(), order.end());
    orders_.emplace_back();
    for (const auto& [sum, clause] : order) orders_.back().push_back(clause);
  }

  void collect_anchors(std::size_t s) {
    const Shard<Token>& shard = engine_.shard(s);
    const std::size_t order = orders_.size() - 1;
    const std::size_t clause = orders_.back().front();
    const auto from = static_cast<std::ptrdiff_t>(anchors_.size());
    for (std::size_t t = 0; t < turned_[clause].size(); ++t) {
      const Range range = ranges_[clause][t][s];
      const std::size_t tokens = turned_[clause][t].size();
      for (std::uint64_t rank = range.begin; rank < range.end; ++rank) {
        anchors_.push_back({s, shard.pointer(rank), tokens, 0, order, false});
      }
    }
    if (limits_.official || turned_[clause].size() == 1) return;
    // a position that several terms match is one hit, identified by its start in reading order
    const auto start = [&](const Anchor& a) { return engine_.reversed() ? a.pointer_bytes + a.term_tokens * sizeof(Token) : a.pointer_bytes; };
    std::sort(anchors_.begin() + from, anchors_.end(), [&](const Anchor& a, const Anchor& b) { return start(a) < start(b); });
    anchors_.erase(std::unique(anchors_.begin() + from, anchors_.end(),
                               [&](const Anchor& a, const Anchor& b) { return start(a) == start(b); }),
                   anchors_.end());
  }

  void sample_anchors() {
    const Permutation order(anchors_.size(), limits_.seed);
    std::vector<Anchor> chosen;
    for (std::uint64_t i = 0; i < limits_.max_anchors; ++i) chosen.push_back(anchors_[order(i)]);
    anchors_ = std::move(chosen);
  }

  void check_anchors() {
    std::vector<std::vector<const Clause<Token>*>> others;
    for (const std::vector<std::size_t>& order : orders_) {
      others.emplace_back();
      for (std::size_t i = 1; i < order.size(); ++i) others.back().push_back(&clauses_[order[i]]);
    }
    const auto distance = static_cast<std::int64_t>(std::min<std::uint64_t>(limits_.max_distance_tokens, std::uint64_t{1} << 40));
    parallel_for(anchors_.size(), 256, [&](std::size_t begin, std::size_t end) {
      for (std::size_t i = begin; i < end; ++i) {
        Anchor& anchor = anchors_[i];
        const Shard<Token>& shard = engine_.shard(anchor.shard);
        const std::uint64_t position = anchor.pointer_bytes / sizeof(Token);
        const Place place = shard.place_at(position);
        if (shard.is_removed(place.document)) continue;
        const ReadingOrder<Token> document(shard, place, engine_.reversed());
        std::int64_t left = document.start_of(position, anchor.term_tokens);
        anchor.matched = grow<Token>(document, others[anchor.order], distance, left, left);
        anchor.document = place.document;
        anchor.pointer_bytes = document.position(left) * sizeof(Token);
      }
    });
  }

  const Engine<Token>& engine_;
  const std::vector<Clause<Token>>& clauses_;
  CnfLimits limits_;
  std::vector<std::vector<std::vector<Range>>> ranges_;  // [clause][term][shard]
  std::vector<Clause<Token>> turned_;                    // terms in the order of the index
  std::vector<std::vector<std::size_t>> orders_;
  std::vector<Anchor> anchors_;
};

}  // namespace infinigram
