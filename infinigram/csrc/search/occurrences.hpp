// Clauses of a CNF query: their occurrences, numbered without storing them, and documents in reading order to match them in.
#pragma once

#include <algorithm>
#include <vector>

#include "search/sample.hpp"

namespace infinigram {

template <typename Token>
using Clause = std::vector<std::vector<Token>>;  // terms, in reading order

struct CnfLimits {
  std::uint64_t max_distance_tokens = 100;
  std::uint64_t max_anchors = 0;  // 0: no limit, exact
  std::uint64_t seed = 0;
};

struct CnfResult {
  std::int64_t count = 0;
  bool approximate = false;
  std::vector<Hit> hits;  // the leftmost token of each match
};

template <typename Token>
bool has_separator(const std::vector<Token>& term) {
  return std::find(term.begin(), term.end(), separator<Token>) != term.end();
}

// The ranks of every term of every clause, [clause][term][shard].
template <typename Token>
class ClauseRanges {
 public:
  ClauseRanges(const Engine<Token>& engine, const std::vector<Clause<Token>>& clauses) : ranges_(clauses.size()) {
    for (std::size_t c = 0; c < clauses.size(); ++c) {
      for (std::vector<Token> term : clauses[c]) {
        if (engine.reversed()) std::reverse(term.begin(), term.end());
        ranges_[c].push_back(find_ranges<Token>(engine, term));
      }
    }
  }

  const std::vector<std::vector<Range>>& operator[](std::size_t clause) const { return ranges_[clause]; }
  std::uint64_t hits(std::size_t clause, std::size_t shard) const {
    std::uint64_t sum = 0;
    for (const std::vector<Range>& term : ranges_[clause]) sum += term[shard].size();
    return sum;
  }

 private:
  std::vector<std::vector<std::vector<Range>>> ranges_;
};

// The occurrences of one clause per shard, numbered by shard, term and rank. A number costs one read of the table, and no memory.
template <typename Token>
class Occurrences {
 public:
  struct One {
    std::size_t shard, clause, term;
    std::uint64_t position_tokens;
  };

  void add(const Shard<Token>& shard, std::size_t number, std::size_t clause, const std::vector<std::vector<Range>>& terms) {
    for (std::size_t t = 0; t < terms.size(); ++t) {
      size_ += terms[t][number].size();
      pieces_.push_back({&shard, number, clause, t, terms[t][number].begin, size_});
    }
  }
  std::uint64_t size() const { return size_; }
  One operator[](std::uint64_t number) const {
    const auto found = std::upper_bound(pieces_.begin(), pieces_.end(), number,
                                        [](std::uint64_t wanted, const Piece& piece) { return wanted < piece.end; });
    const std::uint64_t begin = found == pieces_.begin() ? 0 : std::prev(found)->end;
    const std::uint64_t pointer = found->shard->pointer(found->first_rank + number - begin);
    return {found->number, found->clause, found->term, pointer / sizeof(Token)};
  }

 private:
  struct Piece {
    const Shard<Token>* shard;
    std::size_t number, clause, term;
    std::uint64_t first_rank, end;
  };
  std::vector<Piece> pieces_;
  std::uint64_t size_ = 0;
};

// A document in reading order, for forward and reversed indexes.
template <typename Token>
class ReadingOrder {
 public:
  ReadingOrder(const Shard<Token>& shard, const Place& place, bool reversed) : shard_(shard), place_(place), reversed_(reversed) {}
  std::int64_t size() const { return static_cast<std::int64_t>(place_.end - place_.begin); }
  Token operator[](std::int64_t at) const { return shard_.token(position(at)); }
  // From a reading position to a position in the shard's text, and back.
  std::uint64_t position(std::int64_t at) const {
    return reversed_ ? place_.end - 1 - static_cast<std::uint64_t>(at) : place_.begin + static_cast<std::uint64_t>(at);
  }
  std::int64_t at(std::uint64_t position_tokens) const {
    return static_cast<std::int64_t>(reversed_ ? place_.end - 1 - position_tokens : position_tokens - place_.begin);
  }
  bool has(std::int64_t at, const std::vector<Token>& term) const {
    if (at + static_cast<std::int64_t>(term.size()) > size() || (*this)[at] != term[0]) return false;
    std::size_t same = 1;
    while (same < term.size() && (*this)[at + static_cast<std::int64_t>(same)] == term[same]) ++same;
    return same == term.size();
  }
  bool has_any(std::int64_t at, const Clause<Token>& clause) const {
    return std::any_of(clause.begin(), clause.end(), [&](const std::vector<Token>& term) { return has(at, term); });
  }

 private:
  const Shard<Token>& shard_;
  Place place_;
  bool reversed_;
};

// The position in the shard's text of the first token, in reading order, of a term that was found at a position.
template <typename Token>
std::uint64_t first_read(const Engine<Token>& engine, std::uint64_t position_tokens, std::size_t term_tokens) {
  return engine.reversed() ? position_tokens + term_tokens - 1 : position_tokens;
}

// A sampled count, scaled to all occurrences.
inline std::int64_t scaled(std::size_t found, std::uint64_t all, std::uint64_t examined) {
  return static_cast<std::int64_t>(static_cast<double>(found) * static_cast<double>(all) / static_cast<double>(examined) + 0.5);
}

}  // namespace infinigram
