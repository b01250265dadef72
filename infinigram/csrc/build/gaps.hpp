// Merging sorted parts without comparing suffixes: count how many later suffixes fall between the sorted suffixes of a part.
//
// SAscan (Kärkkäinen and Kempa 2014; pSAscan, with Puglisi, 2015; after Gonnet, Baeza-Yates and Snider 1992). A part is in
// memory; everything after it is read sequentially from right to left. Assume that i suffixes of the part precede the suffix
// at j + 1, and that token c is at j. Then the suffix at j is preceded by the part's suffixes with a smaller first token, and
// by those that begin with c followed by one of the i. The suffixes that begin with c are contiguous, and the ranks of their
// continuations (psi) ascend: one binary search. No step compares text, so repetitive text costs no more than any other.
//
// The part's last token is followed by the text after the part. It is given the rank g that its continuation, the suffix at
// the part's end, would have; a bit, stored by the part to the right for every suffix from its beginning on, decides whether a
// suffix of the same rank precedes or follows that one.
#pragma once

#include <atomic>
#include <cstdint>
#include <string>
#include <unordered_map>
#include <vector>

#include "build/greater.hpp"
#include "build/memory.hpp"
#include "build/part.hpp"
#include "build/sorted_file.hpp"
#include "build/text.hpp"

namespace infinigram::build {

// A sorted part in memory: the suffixes that begin with a token, and the ranks of their continuations.
template <typename Token>
class Continuations {
 public:
  // Records in `greater`, unless null, which of the part's suffixes come after its first.
  Continuations(const Text& text, const SortedFile& part, Greater* greater)
      : alphabet_(text, part.begin(), part.end()),
        starts_(std::size_t{alphabet_.size()} + 1),
        ranks_(part.tokens()),
        border_(part.suffixes_before(text, part.end())),
        last_(load_token<Token>(text.data() + (part.end() - 1) * sizeof(Token))) {
    const auto token = [&](std::uint64_t offset) {
      return load_token<Token>(text.data() + (part.begin() + offset) * sizeof(Token));
    };
    for (std::uint64_t at = 0; at < part.tokens(); ++at) ++starts_[alphabet_.rank(token(at)) + 1];
    for (std::size_t at = 1; at < starts_.size(); ++at) starts_[at] += starts_[at - 1];
    std::vector<std::uint32_t> next(starts_.begin(), starts_.end() - 1);
    const auto put = [&](Token first, std::uint64_t rank) {
      const std::uint32_t symbol = alphabet_.rank(first);
      if (next[symbol] == starts_[symbol + 1]) part.fail();
      ranks_[next[symbol]++] = static_cast<std::uint32_t>(rank);
    };
    FileReader entries(part.file());
    std::uint64_t ahead[kAhead];
    for (std::uint64_t rank = 0; rank < part.tokens() + kAhead; ++rank) {
      if (rank >= kAhead) {
        const std::uint64_t done = rank - kAhead, offset = ahead[rank % kAhead];
        if (done == border_) put(last_, border_);
        if (first_found_ && greater != nullptr) greater->set(part.begin() + offset);
        if (offset == 0) {
          if (first_found_) part.fail();
          first_found_ = true;
          first_ = done;
        } else {
          put(token(offset - 1), done);
        }
      }
      if (rank < part.tokens()) {
        ahead[rank % kAhead] = part.checked(entries.next<Position>());
        text.fetch(part.begin() + std::max<std::uint64_t>(ahead[rank % kAhead], 1) - 1);
      }
    }
    if (border_ == part.tokens()) put(last_, border_);
    if (!first_found_) part.fail();
  }

  struct Bucket {
    std::uint32_t begin, size;
  };
  Bucket bucket(Token token) const {
    if (!alphabet_.has(token)) return {starts_[alphabet_.before(token)], 0};
    const std::uint32_t symbol = alphabet_.rank(token);
    return {starts_[symbol], starts_[symbol + 1] - starts_[symbol]};
  }
  const std::uint32_t* ranks() const { return ranks_.data(); }
  std::uint64_t first() const { return first_; }    // the rank of the part's first suffix
  std::uint64_t border() const { return border_; }  // suffixes that precede the one at the part's end
  Token last() const { return last_; }

 private:
  static constexpr std::uint64_t kAhead = 32;

  Alphabet<Token> alphabet_;
  std::vector<std::uint32_t> starts_;
  HugeArray<std::uint32_t> ranks_;
  std::uint64_t border_;
  Token last_;
  std::uint64_t first_ = 0;
  bool first_found_ = false;
};

// Number of later suffixes that fall directly before each sorted suffix of a part: [tokens + 1], one byte each while counting;
// overflows are counted in units of 256.
class Gaps {
 public:
  using Overflow = std::unordered_map<std::uint32_t, std::uint64_t>;

  explicit Gaps(std::uint64_t tokens) : counts_(tokens + 1) {}

  void fetch(std::uint64_t rank) const { __builtin_prefetch(counts_.data() + rank, 1); }
  void add(std::uint64_t rank, Overflow& overflow) {
    const std::atomic_ref<std::uint8_t> count(counts_[rank]);
    if (count.fetch_add(1, std::memory_order_relaxed) == 255) ++overflow[static_cast<std::uint32_t>(rank)];
  }

  // One byte for a gap below 255, otherwise 255 and eight bytes.
  void write(const File& file, const Overflow& overflow) const {
    std::vector<Byte> buffer;
    std::uint64_t offset = 0;
    const auto flush = [&] {
      file.write_at(buffer.data(), buffer.size(), offset);
      offset += buffer.size();
      buffer.clear();
    };
    for (std::uint64_t rank = 0; rank < counts_.size(); ++rank) {
      std::uint64_t count = counts_[rank];
      if (!overflow.empty()) {
        const auto more = overflow.find(static_cast<std::uint32_t>(rank));
        if (more != overflow.end()) count += more->second << 8;
      }
      buffer.push_back(static_cast<Byte>(std::min<std::uint64_t>(count, 255)));
      if (count >= 255) {
        buffer.resize(buffer.size() + 8);
        std::memcpy(buffer.data() + buffer.size() - 8, &count, 8);
      }
      if (buffer.size() > kBufferBytes) flush();
    }
    flush();
  }

 private:
  static constexpr std::size_t kBufferBytes = std::size_t{1} << 18;

  HugeArray<std::uint8_t> counts_;
};

// Counts the suffixes after a part; several stretches of the text are interleaved so that their memory accesses overlap.
template <typename Token>
class GapCounter {
 public:
  // `behind` is the output of the part to the right; `greater` receives that of this part, unless null.
  GapCounter(const Text& text, const SortedFile& part, const Continuations<Token>& part_in_memory, const Greater& behind,
             Greater* greater, Gaps& gaps, std::uint64_t threads)
      : text_(text), part_(part), order_(part_in_memory), behind_(behind), greater_(greater), gaps_(gaps) {
    const std::uint64_t tokens = text.tokens() - part.begin();
    stretch_ = std::max(kLeastStretch, tokens / (threads * kLanes * 4) / 64 * 64);
    next_ = part.tokens() / stretch_;  // stretches are aligned to the part's beginning, like the words of the bit set
    stretches_ = (tokens + stretch_ - 1) / stretch_;
  }

  // The work of one thread; `done` counts tokens.
  void run(Gaps::Overflow& overflow, std::atomic<std::uint64_t>& done, const std::atomic<bool>& stopped) {
    std::vector<Lane> lanes;
    for (std::size_t lane = 0; lane < kLanes; ++lane) {
      Lane fresh;
      if (!take(fresh)) break;
      lanes.push_back(fresh);
    }
    while (!lanes.empty()) {
      for (std::size_t lane = 0; lane < lanes.size();) {
        if (step(lanes[lane], overflow)) {
          done += lanes[lane].length;
          if (stopped) return;
          if (!take(lanes[lane])) {
            lanes[lane] = lanes.back();
            lanes.pop_back();
            continue;
          }
        }
        ++lane;
      }
    }
  }

 private:
  static constexpr std::size_t kLanes = 32;
  static constexpr std::uint64_t kLeastStretch = 256;
  static constexpr std::uint32_t kNear = 8;  // entries that are examined together

  // The tokens [stop, at) of a stretch remain; `rank` suffixes of the part precede the one at `at`.
  struct Lane {
    std::uint64_t at, stop, length, rank, bits;
    std::uint32_t low, size;
    Token token;
    bool counted;  // whether the gap of `rank` has been counted
  };

  bool take(Lane& lane) {
    const std::uint64_t stretch = next_++;
    if (stretch >= stretches_) return false;
    lane.stop = std::max(part_.begin() + stretch * stretch_, part_.end());
    lane.at = std::min(part_.begin() + (stretch + 1) * stretch_, text_.tokens());
    lane.length = lane.at - lane.stop;
    if (lane.length == 0) return take(lane);
    lane.rank = part_.suffixes_before(text_, lane.at);
    lane.bits = 0;
    lane.counted = true;  // by the stretch that begins there
    look_up(lane);
    return true;
  }

  void look_up(Lane& lane) const {
    lane.token = load_token<Token>(text_.data() + (lane.at - 1) * sizeof(Token));
    const auto bucket = order_.bucket(lane.token);
    lane.low = bucket.begin;
    lane.size = bucket.size;
    if (lane.size > kNear) __builtin_prefetch(order_.ranks() + lane.low + lane.size / 2 - 1);
    else __builtin_prefetch(order_.ranks() + lane.low);
  }

  // One step of the binary search, or its end; returns whether the stretch is finished.
  bool step(Lane& lane, Gaps::Overflow& overflow) {
    const std::uint32_t* ranks = order_.ranks();
    if (!lane.counted) {
      gaps_.add(lane.rank, overflow);
      lane.counted = true;
    }
    if (lane.size > kNear) {
      const std::uint32_t half = lane.size / 2;
      lane.low += ranks[lane.low + half - 1] < lane.rank ? half : 0;
      lane.size -= half;
      __builtin_prefetch(ranks + lane.low + (lane.size > kNear ? lane.size / 2 - 1 : 0));
      return false;
    }
    std::uint64_t rank = lane.low;
    for (std::uint32_t each = 0; each < lane.size; ++each) rank += ranks[lane.low + each] < lane.rank;
    const bool at_border = lane.rank == order_.border() && lane.token == order_.last();
    if (at_border && lane.at < text_.tokens() && behind_[lane.at]) ++rank;
    --lane.at;
    lane.rank = rank;
    gaps_.fetch(rank);
    if (greater_ != nullptr) {
      const int shift = greater_->shift(lane.at);
      lane.bits |= std::uint64_t{rank > order_.first()} << shift;
      if (shift == 0 || lane.at == lane.stop) {
        greater_->add(lane.at, lane.bits);
        lane.bits = 0;
      }
    }
    lane.counted = false;
    if (lane.at > lane.stop) {
      look_up(lane);
      return false;
    }
    gaps_.add(rank, overflow);
    return true;
  }

  const Text& text_;
  const SortedFile& part_;
  const Continuations<Token>& order_;
  const Greater& behind_;
  Greater* greater_;
  Gaps& gaps_;
  std::uint64_t stretch_;
  std::uint64_t stretches_;
  std::atomic<std::uint64_t> next_;
};

}  // namespace infinigram::build
