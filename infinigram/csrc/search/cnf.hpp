// CNF queries: all clauses must occur close together in one document; a clause matches if any of its terms does.
//
// A match is one start of a term per clause such that, in reading order, neighbours are at most `max_distance_tokens` apart; one
// position may serve several clauses. The count is the largest number of disjoint matches, summed over documents. So it depends on
// neither other documents nor the order of the clauses, and is at most the number of occurrences of each clause.
#pragma once

#include <string>

#include "search/occurrences.hpp"

namespace infinigram {

inline constexpr std::size_t kMostClauses = 16;  // a position costs 2^clauses steps

// Finds disjoint matches among positions given in ascending order, each as soon as it is complete, which yields the most. For every
// set of clauses it keeps the chain of starts that ends last: whatever extends an earlier one extends that one too.
class Chains {
 public:
  Chains(std::size_t clauses, std::int64_t distance) : full_((std::uint32_t{1} << clauses) - 1), distance_(distance), chains_(full_ + 1) {}

  // Adds a position where the clauses of `starting` begin (one bit each); returns whether it completes a match, which then begins at `left`.
  bool add(std::int64_t at, std::uint32_t starting, std::int64_t& left) {
    for (std::uint32_t set = 0; set < full_; ++set) {  // ascending, so that one position can add several clauses
      if (set != 0 && (chains_[set].last == kNever || chains_[set].last < at - distance_)) continue;
      const std::int64_t first = set == 0 ? at : chains_[set].first;
      for (std::uint32_t open = starting & ~set; open != 0; open &= open - 1) {
        Chain& longer = chains_[set | (open & -open)];
        longer = {at, longer.last == at ? std::max(longer.first, first) : first};
      }
    }
    if (chains_[full_].last != at) return false;
    left = chains_[full_].first;
    std::fill(chains_.begin(), chains_.end(), Chain{});
    return true;
  }

 private:
  static constexpr std::int64_t kNever = -1;
  struct Chain {
    std::int64_t last = kNever, first = kNever;
  };
  std::uint32_t full_;
  std::int64_t distance_;
  std::vector<Chain> chains_;  // by set of clauses
};

// Only text within reach of an occurrence of the rarest clause is read. Exact searches hold its positions (16 bytes each); above
// `max_anchors` of them, a sample of their numbers is drawn first, and only those are read.
template <typename Token>
class CnfSearch {
 public:
  CnfSearch(const Engine<Token>& engine, const std::vector<Clause<Token>>& clauses, const CnfLimits& limits)
      : engine_(engine), clauses_(clauses), limits_(limits) {
    if (clauses.size() > kMostClauses) {
      throw BadQuery("a CNF query has at most " + std::to_string(kMostClauses) + " clauses, not " + std::to_string(clauses.size()));
    }
    for (const Clause<Token>& clause : clauses) {
      if (std::any_of(clause.begin(), clause.end(), has_separator<Token>)) {
        throw BadQuery("a term of a CNF query cannot contain the document separator; leave it out");
      }
    }
    const ClauseRanges<Token> ranges(engine, clauses);
    std::uint64_t fewest = ~std::uint64_t{0};
    for (std::size_t c = 0; c < clauses.size(); ++c) {
      std::uint64_t sum = 0;
      for (std::size_t s = 0; s < engine.main(); ++s) sum += ranges.hits(c, s);
      if (sum < fewest) rarest_ = c;
      fewest = std::min(fewest, sum);
    }
    for (std::size_t s = 0; s < engine.main(); ++s) {
      by_shard_.emplace_back();
      by_shard_.back().add(engine.shard(s), s, rarest_, ranges[rarest_]);
      all_.add(engine.shard(s), s, rarest_, ranges[rarest_]);
    }
    distance_ = static_cast<std::int64_t>(std::min<std::uint64_t>(limits.max_distance_tokens, std::uint64_t{1} << 40));
    reach_ = distance_ * static_cast<std::int64_t>(clauses.size() - 1);
  }

  // O(tokens within clauses * distance of an occurrence of the rarest clause * (terms + 2^clauses)).
  CnfResult run() const {
    const bool sampled = limits_.max_anchors != 0 && all_.size() > limits_.max_anchors;
    CnfResult result = sampled ? estimate() : exact();
    for (std::size_t i = 0; i < result.hits.size(); ++i) result.hits[i].number = i;
    return result;
  }

 private:
  static constexpr std::uint64_t kNone = ~std::uint64_t{0};
  // A sampled occurrence is searched from here on, in multiples of the reach: matches before it hardly change which follow.
  static constexpr std::int64_t kLookBack = 8;

  CnfResult exact() const {
    CnfResult result;
    for (std::size_t s = 0; s < engine_.main(); ++s) {
      const std::vector<std::uint64_t> anchors = anchors_of(by_shard_[s]);
      std::vector<std::uint64_t> lefts(anchors.size(), kNone);  // a region has at most as many matches as anchors
      parallel_for(anchors.size(), 256, [&](std::size_t begin, std::size_t end) {
        while (begin < end && !begins_region(s, anchors, begin)) ++begin;
        while (begin < end) begin = search_region(s, anchors, begin, lefts);
      });
      for (const std::uint64_t left : lefts) {
        if (left != kNone) result.hits.push_back({s, left * sizeof(Token), engine_.shard(s).place_at(left).document, 0});
      }
    }
    result.count = static_cast<std::int64_t>(result.hits.size());
    return result;
  }

  // Positions in the shard's text of the first tokens of the rarest clause, ascending; once each, even if several terms match.
  std::vector<std::uint64_t> anchors_of(const Occurrences<Token>& occurrences) const {
    std::vector<std::uint64_t> anchors(occurrences.size());
    parallel_for(anchors.size(), 4096, [&](std::size_t begin, std::size_t end) {
      for (std::size_t i = begin; i < end; ++i) anchors[i] = first_read_of(occurrences[i]);
    });
    std::sort(anchors.begin(), anchors.end());
    anchors.erase(std::unique(anchors.begin(), anchors.end()), anchors.end());
    return anchors;
  }

  std::uint64_t first_read_of(const typename Occurrences<Token>::One& one) const {
    return first_read(engine_, one.position_tokens, clauses_[rarest_][one.term].size());
  }

  // Whether no match can contain both this anchor and the one before.
  bool begins_region(std::size_t s, const std::vector<std::uint64_t>& anchors, std::size_t i) const {
    return i == 0 || anchors[i] - anchors[i - 1] > 2 * static_cast<std::uint64_t>(reach_) ||
           anchors[i - 1] < engine_.shard(s).place_at(anchors[i]).begin;
  }

  // Searches the region that begins with anchor i and returns the first anchor after it; matches are written from lefts[i] on.
  std::size_t search_region(std::size_t s, const std::vector<std::uint64_t>& anchors, std::size_t i,
                            std::vector<std::uint64_t>& lefts) const {
    const Shard<Token>& shard = engine_.shard(s);
    const Place place = shard.place_at(anchors[i]);
    std::size_t end = i + 1;
    while (end < anchors.size() && anchors[end] < place.end && anchors[end] - anchors[end - 1] <= 2 * static_cast<std::uint64_t>(reach_)) {
      ++end;
    }
    if (shard.is_removed(place.document)) return end;
    const ReadingOrder<Token> document(shard, place, engine_.reversed());
    const auto [first, last] = std::minmax({document.at(anchors[i]), document.at(anchors[end - 1])});  // values, not references
    Chains chains(clauses_.size(), distance_);
    const std::int64_t until = std::min(document.size() - 1, last + reach_);
    std::int64_t left = 0;
    for (std::int64_t at = std::max<std::int64_t>(0, first - reach_); at <= until && i < end; ++at) {
      const std::uint32_t starting = starting_at(document, at);
      if (starting != 0 && chains.add(at, starting, left)) lefts[i++] = document.position(left);
    }
    return end;
  }

  std::uint32_t starting_at(const ReadingOrder<Token>& document, std::int64_t at) const {
    std::uint32_t starting = 0;
    for (std::size_t c = 0; c < clauses_.size(); ++c) {
      if (document.has_any(at, clauses_[c])) starting |= std::uint32_t{1} << c;
    }
    return starting;
  }

  // Every match belongs to the last anchor in it, so the share of sampled anchors that own a match, times all, estimates the count.
  CnfResult estimate() const {
    const Permutation order(all_.size(), limits_.seed);
    std::vector<Hit> found(limits_.max_anchors);
    parallel_for(found.size(), 256, [&](std::size_t begin, std::size_t end) {
      for (std::size_t i = begin; i < end; ++i) found[i] = owned(all_[order(i)]);
    });
    std::erase_if(found, [](const Hit& hit) { return hit.shard == kNone; });
    const std::int64_t count = scaled(found.size(), all_.size(), limits_.max_anchors);
    return {count, true, std::move(found)};
  }

  // The match that belongs to an occurrence of the rarest clause.
  Hit owned(const typename Occurrences<Token>::One& one) const {
    constexpr Hit nothing{kNone, 0, 0, 0};
    const Shard<Token>& shard = engine_.shard(one.shard);
    const Place place = shard.place_at(one.position_tokens);
    if (shard.is_removed(place.document)) return nothing;
    const ReadingOrder<Token> document(shard, place, engine_.reversed());
    const std::int64_t anchor = document.at(first_read_of(one));
    for (std::size_t term = 0; term < one.term; ++term) {  // a position that several terms match is one occurrence, of the first
      if (document.has(anchor, clauses_[rarest_][term])) return nothing;
    }
    Chains chains(clauses_.size(), distance_);
    const std::int64_t until = std::min(document.size() - 1, anchor + reach_);
    std::int64_t left = 0;
    for (std::int64_t at = search_from(document, anchor); at <= until; ++at) {
      const std::uint32_t starting = starting_at(document, at);
      if (at > anchor && (starting >> rarest_ & 1) != 0) return nothing;
      if (starting != 0 && chains.add(at, starting, left) && at >= anchor) {
        return {one.shard, document.position(left) * sizeof(Token), place.document, 0};
      }
    }
    return nothing;
  }

  // Where the region of an anchor begins, or kLookBack reaches before the anchor if the region is longer.
  std::int64_t search_from(const ReadingOrder<Token>& document, std::int64_t anchor) const {
    std::int64_t first = anchor;
    const std::int64_t least = std::max<std::int64_t>(0, anchor - kLookBack * reach_);
    for (std::int64_t at = anchor - 1; at >= least && first - at <= 2 * reach_; --at) {
      if (document.has_any(at, clauses_[rarest_])) first = at;
    }
    return std::max(least, first - reach_);
  }

  const Engine<Token>& engine_;
  const std::vector<Clause<Token>>& clauses_;
  CnfLimits limits_;
  std::size_t rarest_ = 0;
  std::int64_t distance_ = 0, reach_ = 0;
  std::vector<Occurrences<Token>> by_shard_;
  Occurrences<Token> all_;
};

}  // namespace infinigram
