// The search for one query in one shard, split into steps of one memory access each, so that many searches can be interleaved.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "search/keys.hpp"
#include "search/shard.hpp"

namespace infinigram {

enum class Want : std::uint8_t { kRange, kLongest };

// Finds the ranks whose suffixes begin with a query (kRange), or the length of its longest prefix that occurs (kLongest).
//
// The sampled keys only narrow the ranks down: if the answer is at an edge whose suffix was not compared, that edge is compared too,
// and a search that was misled by its keys restarts over all ranks. Bytes that both edges are known to share with the query are
// not compared again (Manber and Myers 1990). O(log tokens) memory accesses.
template <typename Token>
class Search {
 public:
  // `ahead` prefetches the next three levels of a bisection: faster for a single search, too much for interleaved ones.
  void start(const Shard<Token>& shard, const Token* query, std::size_t tokens, Want want, bool ahead) {
    shard_ = &shard;
    query_ = reinterpret_cast<const Byte*>(query);
    bytes_ = tokens * sizeof(Token);
    want_ = want;
    ahead_ = ahead;
    levels_ready_ = 0;
    longest_ = 0;
    first_token_ = {0, shard.tokens()};
    first_token_bytes_ = 0;
    if (tokens != 0 && shard.first_token(query[0], first_token_)) {
      first_token_bytes_ = sizeof(Token);
      longest_ = first_token_.size() == 0 ? 0 : sizeof(Token);
    }
    if (bytes_ == first_token_bytes_ || first_token_.size() == 0) {
      begin_ = first_token_.begin;
      end_ = first_token_.end;
      stage_ = Stage::kDone;
      return;
    }
    std::uint64_t head = 0;
    std::memcpy(&head, query_, bytes_ < 8 ? bytes_ : 8);
    const std::uint64_t key = __builtin_bswap64(head);
    const auto samples_before = [&shard](std::uint64_t rank) { return std::min((rank + kStride - 1) / kStride, shard.samples()); };
    keys_.start(shard.keys(), {samples_before(first_token_.begin), samples_before(first_token_.end)}, key,
                bytes_ < 8 ? key | (~std::uint64_t{0} >> (8 * bytes_)) : key);
    stage_ = Stage::kKeys;
  }

  // Returns whether the search is finished.
  bool step() {
    switch (stage_) {
      case Stage::kKeys: return keys_.step() && search_ranks();
      case Stage::kTable: return fetch_text();
      case Stage::kText: return compared(compare());
      case Stage::kDone: return true;
    }
    return true;
  }

  void run() {
    while (!step()) {
    }
  }

  Range range() const { return {begin_, end_}; }
  std::uint64_t longest_tokens() const { return longest_ / sizeof(Token); }
  // For kLongest: the suffix at this rank, or the one before it, has the longest match with the query.
  std::uint64_t nearest_rank() const { return begin_; }

 private:
  enum class Stage : std::uint8_t { kKeys, kTable, kText, kDone };
  enum class Phase : std::uint8_t { kShared, kLower, kUpper, kCheckBelow, kCheckAbove };
  static constexpr std::uint64_t kNearBytes = 64;  // table entries this close were most likely fetched with the last one

  bool search_ranks() {
    const std::uint64_t low = keys_.first() == 0 ? 0 : (keys_.first() - 1) * kStride + 1;
    begin_ranks(std::max(low, first_token_.begin), keys_.last() < keys_.limit() ? keys_.last() * kStride : first_token_.end);
    low_common_ = high_common_ = first_token_bytes_;
    below_known_ = low_ == first_token_.begin;
    above_known_ = high_ == first_token_.end;
    // the whole query fits in the key: its first and last samples are hits, so the edges are next to them
    if (bytes_ <= 8 && keys_.first() < keys_.last()) {
      hint_ = true;
      levels_ready_ = 1;
      return look_at(keys_.first() * kStride);
    }
    return next();
  }

  void begin_ranks(std::uint64_t low, std::uint64_t high) {
    low_ = low;
    high_ = high;
    below_known_ = low == 0;
    above_known_ = high == shard_->tokens();
    low_common_ = 0;
    high_common_ = 0;
    hint_ = false;
    middle_ = high;  // arbitrary; only marks that no nearby entry has been fetched
    phase_ = Phase::kShared;
    stage_ = Stage::kTable;
  }

  std::uint64_t shared() const {
    if (phase_ >= Phase::kCheckBelow) return 0;
    return low_common_ < high_common_ ? low_common_ : high_common_;
  }

  bool fetch_text() {
    pointer_ = shard_->pointer(middle_);
    shard_->prefetch_text(pointer_ + shared());
    stage_ = Stage::kText;
    return false;
  }

  void fetch_ahead(std::uint64_t low, std::uint64_t high, int levels) {
    if (low >= high) return;
    const std::uint64_t middle = low + (high - low) / 2;
    shard_->prefetch_text(shard_->pointer(middle) + shared());
    if (levels == 1) return;
    fetch_ahead(low, middle, levels - 1);
    fetch_ahead(middle + 1, high, levels - 1);
  }

  // The order of the suffix at `pointer_` and the query: negative, 0 if the suffix begins with the query, positive.
  int compare() {
    const std::uint64_t left = shard_->text_bytes() - pointer_;
    const std::uint64_t bytes = bytes_ < left ? bytes_ : left;
    const Byte* at = shard_->text() + pointer_;
    const std::uint64_t skip = shared();
    common_ = common_bytes(at, query_, skip, bytes);
    if (common_ > longest_) longest_ = common_;
    if (common_ == bytes_) return 0;
    if (common_ == left) return -1;
    return at[common_] < query_[common_] ? -1 : 1;
  }

  bool compared(int order) {
    switch (phase_) {
      case Phase::kShared:
        if (order == 0) return hit();
        narrow(order < 0);
        if (order < 0) {
          below_known_ = true;
        } else {
          above_known_ = true;
        }
        return next();
      case Phase::kLower:
        narrow(order < 0);
        if (order < 0) below_known_ = true;
        return next();
      case Phase::kUpper:
        narrow(order <= 0);
        if (order > 0) above_known_ = true;
        return next();
      case Phase::kCheckBelow:
        if (order >= 0) return misled();
        below_known_ = true;
        return check();
      case Phase::kCheckAbove:
        if (order <= 0) return misled();
        above_known_ = true;
        return check();
    }
    return true;
  }

  void narrow(bool up) {
    if (up) {
      low_ = middle_ + 1;
      low_common_ = common_;
    } else {
      high_ = middle_;
      high_common_ = common_;
    }
  }

  bool hit() {
    if (want_ == Want::kLongest) {
      begin_ = middle_;
      stage_ = Stage::kDone;
      return true;
    }
    upper_low_ = middle_ + 1;
    upper_high_ = high_;
    upper_high_common_ = high_common_;
    high_ = middle_;
    high_common_ = bytes_;
    phase_ = Phase::kLower;
    return next();
  }

  bool next() {
    if (low_ < high_) return look_at(low_ + (high_ - low_) / 2);
    if (phase_ == Phase::kLower) {
      begin_ = low_;
      low_ = upper_low_;
      high_ = upper_high_;
      low_common_ = bytes_;
      high_common_ = upper_high_common_;
      phase_ = Phase::kUpper;
      levels_ready_ = 0;
      const std::uint64_t last_sample = (keys_.last() - 1) * kStride;
      if (hint_ && last_sample >= low_ && last_sample < high_) {
        levels_ready_ = 1;
        return look_at(last_sample);
      }
      if (low_ < high_) return look_at(low_ + (high_ - low_) / 2);
    }
    if (phase_ == Phase::kShared) begin_ = low_;
    end_ = low_;
    return check();
  }

  bool check() {
    if (!below_known_) {
      phase_ = Phase::kCheckBelow;
      return look_at(begin_ - 1);
    }
    if (!above_known_) {
      phase_ = Phase::kCheckAbove;
      return look_at(end_);
    }
    stage_ = Stage::kDone;
    return true;
  }

  bool look_at(std::uint64_t rank) {
    const std::uint64_t apart = rank < middle_ ? middle_ - rank : rank - middle_;
    middle_ = rank;
    if (ahead_) {
      if (levels_ready_ == 0) {
        levels_ready_ = 3;
        fetch_ahead(low_, high_, 3);
      }
      --levels_ready_;
      return fetch_text();
    }
    if (apart * shard_->entry_bytes() < kNearBytes) return fetch_text();
    shard_->prefetch_entry(rank);
    stage_ = Stage::kTable;
    return false;
  }

  bool misled() {
    first_token_bytes_ = 0;
    begin_ranks(0, shard_->tokens());
    return next();
  }

  const Shard<Token>* shard_;
  const Byte* query_;
  KeySearch keys_;
  std::uint64_t bytes_, low_, high_, middle_, pointer_, first_token_bytes_;
  Range first_token_;
  std::uint64_t low_common_, high_common_, upper_high_common_, common_, longest_;
  std::uint64_t upper_low_, upper_high_, begin_, end_;
  Want want_;
  Stage stage_;
  Phase phase_;
  int levels_ready_;
  bool below_known_, above_known_, hint_, ahead_;
};

}  // namespace infinigram
