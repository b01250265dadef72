// An index: its shards, the removed documents, and exact counts that account for both.
#pragma once

#include <limits>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "search/borders.hpp"
#include "search/interleave.hpp"
#include "pool.hpp"
#include "radix.hpp"
#include "search/search.hpp"
#include "search/shard.hpp"

namespace infinigram {

// A query in index order: reversed if the index holds reversed documents (version 5).
template <typename Token>
using Query = std::span<const Token>;

template <typename Token>
class Engine {
 public:
  Engine(const std::vector<ShardFiles>& shards, const std::vector<ShardFiles>& removed, bool reversed, std::uint64_t eos, Load load,
         bool accelerate)
      : reversed_(reversed), eos_(eos), main_(shards.size()) {
    for (const ShardFiles& files : shards) shards_.push_back(std::make_unique<Shard<Token>>(files, load, accelerate));
    for (const ShardFiles& files : removed) shards_.push_back(std::make_unique<Shard<Token>>(files, load, accelerate));
    for (std::size_t s = 0; s < shards_.size(); ++s) {
      tokens_ += sign(s) * static_cast<std::int64_t>(shards_[s]->tokens());
      if (accelerate) shards_[s]->set_first_tokens(unigrams(*shards_[s]));
    }
  }

  bool reversed() const { return reversed_; }
  // The id reported for an end of document.
  std::uint64_t eos() const { return eos_; }
  // Number of shards that hold documents; they are followed by shards with copies of removed documents.
  std::size_t main() const { return main_; }
  std::size_t all() const { return shards_.size(); }
  bool any_removed() const { return shards_.size() > main_; }
  const Shard<Token>& shard(std::size_t s) const { return *shards_[s]; }
  std::int64_t sign(std::size_t s) const { return s < main_ ? 1 : -1; }
  // Tokens of the documents that are not removed, including separators.
  std::int64_t tokens() const { return tokens_; }

 private:
  bool reversed_;
  std::uint64_t eos_;
  std::size_t main_;
  std::int64_t tokens_ = 0;
  std::vector<std::unique_ptr<Shard<Token>>> shards_;
};

// With at most this many searches, each may prefetch.
inline constexpr std::size_t kFew = 4;

// Searches every query in the first `shards` shards and calls answer(query number, shard number, search).
template <typename Token, typename Answer>
void search_all(const Engine<Token>& engine, std::span<const Query<Token>> queries, std::size_t shards, Want want, Answer answer) {
  if (queries.size() == 1 && shards == 1) {
    Search<Token> search;
    search.start(engine.shard(0), queries[0].data(), queries[0].size(), want, true);
    search.run();
    answer(std::size_t{0}, std::size_t{0}, search);
    return;
  }
  const bool few = queries.size() * shards <= kFew;
  interleave<Search<Token>>(
      queries.size() * shards,
      [&](Search<Token>& search, std::size_t job) {
        const Query<Token> query = queries[job / shards];
        search.start(engine.shard(job % shards), query.data(), query.size(), want, few);
      },
      [&](const Search<Token>& search, std::size_t job) { answer(job / shards, job % shards, search); });
}

// The range of a query in each shard, including the shards of removed documents.
template <typename Token>
std::vector<Range> find_ranges(const Engine<Token>& engine, Query<Token> query) {
  std::vector<Range> ranges(engine.all());
  search_all<Token>(engine, std::span(&query, 1), engine.all(), Want::kRange,
                    [&](std::size_t, std::size_t s, const Search<Token>& search) { ranges[s] = search.range(); });
  return ranges;
}

// Whether a query crosses a document border. Such a query has other neighbours in the copies of removed documents than in the
// index, so its count cannot be subtracted: its hits are examined one by one.
template <typename Token>
bool crosses_documents(Query<Token> query) {
  for (std::size_t at = 1; at < query.size(); ++at) {
    if (query[at] == separator<Token>) return true;
  }
  return false;
}

// Whether a hit overlaps a removed document other than by a final separator.
template <typename Token>
bool hits_removed(const Shard<Token>& shard, std::uint64_t pointer_bytes, Query<Token> query) {
  if (shard.removed().empty()) return false;
  std::uint64_t document = shard.place_at(pointer_bytes / sizeof(Token)).document;
  if (shard.is_removed(document)) return true;
  for (std::size_t at = 1; at + 1 < query.size(); ++at) {
    if (query[at] == separator<Token> && shard.is_removed(++document)) return true;
  }
  return false;
}

// Calls visit(shard number, byte offset) for every occurrence outside removed documents, in rank order. O(hits).
template <typename Token, typename Visit>
void for_each_hit(const Engine<Token>& engine, Query<Token> query, const std::vector<Range>& ranges, Visit visit) {
  for (std::size_t s = 0; s < engine.main(); ++s) {
    const Shard<Token>& shard = engine.shard(s);
    for (std::uint64_t rank = ranges[s].begin; rank < ranges[s].end; ++rank) {
      const std::uint64_t pointer = shard.pointer(rank);
      if (!hits_removed(shard, pointer, query)) visit(s, pointer);
    }
  }
}

// Adds each query's occurrences outside removed documents to `counts`, which start at 0.
template <typename Token>
void count_all(const Engine<Token>& engine, std::span<const Query<Token>> queries, std::int64_t* counts) {
  search_all<Token>(engine, queries, engine.all(), Want::kRange,
                    [&](std::size_t q, std::size_t s, const Search<Token>& search) {
                      counts[q] += engine.sign(s) * static_cast<std::int64_t>(search.range().size());
                    });
  if (!engine.any_removed()) return;
  for (std::size_t q = 0; q < queries.size(); ++q) {
    if (!crosses_documents(queries[q])) continue;
    counts[q] = 0;
    for_each_hit(engine, queries[q], find_ranges(engine, queries[q]), [&](std::size_t, std::uint64_t) { ++counts[q]; });
  }
}

template <typename Token>
std::int64_t count_one(const Engine<Token>& engine, Query<Token> query) {
  std::int64_t count = 0;
  count_all<Token>(engine, std::span(&query, 1), &count);
  return count;
}

// The first four bytes of a query as a big-endian number, padded with zeros: close numbers mean close ranks.
template <typename Token>
std::uint32_t first_bytes(Query<Token> query) {
  std::uint32_t head = 0;
  if (!query.empty()) std::memcpy(&head, query.data(), std::min<std::size_t>(query.size_bytes(), 4));
  return __builtin_bswap32(head);
}

// Same, on the pool's threads, for batches. Large batches are searched in rank order, so that neighbours read the same pages.
template <typename Token>
void count_batch(const Engine<Token>& engine, std::span<const Query<Token>> queries, std::int64_t* counts) {
  constexpr std::size_t kWorthSorting = 4096;
  if (queries.size() < kWorthSorting || queries.size() > std::numeric_limits<std::uint32_t>::max()) {
    parallel_for(queries.size(), 2048, [&](std::size_t begin, std::size_t end) {
      count_all<Token>(engine, queries.subspan(begin, end - begin), counts + begin);
    });
    return;
  }
  std::vector<std::uint64_t> order(queries.size());  // the first bytes in the high half, the query number in the low half
  for (std::size_t q = 0; q < queries.size(); ++q) order[q] = std::uint64_t{first_bytes(queries[q])} << 32 | q;
  radix_sort(order, [](std::uint64_t item) { return item >> 32; });
  parallel_for(queries.size(), 2048, [&](std::size_t begin, std::size_t end) {
    std::vector<Query<Token>> near(end - begin);
    std::vector<std::int64_t> found(end - begin, 0);
    for (std::size_t i = 0; i < near.size(); ++i) near[i] = queries[order[begin + i] & 0xffffffff];
    count_all<Token>(engine, near, found.data());
    for (std::size_t i = 0; i < near.size(); ++i) counts[order[begin + i] & 0xffffffff] = found[i];
  });
}

}  // namespace infinigram
