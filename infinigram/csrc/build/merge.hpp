// The table of a text from sorted parts in memory: one exact merge with random reads of the text.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "build/memory.hpp"
#include "build/order.hpp"
#include "build/sais.hpp"
#include "build/text.hpp"
#include "tokens.hpp"

namespace infinigram::build {

// A sorted part: positions counted from `begin`.
struct Part {
  std::uint64_t begin = 0;
  HugeArray<Position> offsets;

  std::uint64_t tokens() const { return offsets.size(); }
  std::uint64_t position(std::uint64_t rank) const { return begin + static_cast<std::uint64_t>(offsets[rank]); }
};

// Writes packed entries starting at a rank; several writers may fill one file.
class TableWriter {
 public:
  TableWriter(const File& file, const Text& text, std::uint64_t rank)
      : file_(file), scale_(text.width()), entry_bytes_(static_cast<std::uint64_t>(entry_bytes(text.bytes()))) {
    offset_ = rank * entry_bytes_;
    buffer_.resize(kBufferBytes + 8);
  }

  void put(std::uint64_t position) {
    const std::uint64_t entry = position * scale_;
    std::memcpy(buffer_.data() + filled_, &entry, 8);  // the next entry overwrites the excess bytes
    filled_ += entry_bytes_;
    if (filled_ >= kBufferBytes) flush();
  }

  void flush() {
    file_.write_at(buffer_.data(), filled_, offset_);
    offset_ += filled_;
    filled_ = 0;
  }

 private:
  static constexpr std::uint64_t kBufferBytes = std::uint64_t{1} << 20;

  const File& file_;
  std::uint64_t scale_;
  std::uint64_t entry_bytes_;
  std::uint64_t offset_ = 0;
  std::uint64_t filled_ = 0;
  std::vector<Byte> buffer_;
};

// Iterates over a range of a sorted part and prefetches the text of upcoming entries.
class PartReader {
 public:
  PartReader(const Text& text, const Part& part, std::uint64_t from, std::uint64_t to)
      : text_(text), part_(part), next_(from), end_(to) {
    for (std::uint64_t each = from; each < std::min(from + kAhead, to); ++each) text_.fetch(part_.position(each));
    advance();
  }

  bool ended() const { return ended_; }
  std::uint64_t key() const { return key_; }
  std::uint64_t position() const { return position_; }

  void advance() {
    if (next_ == end_) {
      ended_ = true;
      return;
    }
    if (next_ + kAhead < end_) text_.fetch(part_.position(next_ + kAhead));
    position_ = part_.position(next_++);
    key_ = text_.key(position_);
  }

 private:
  static constexpr std::uint64_t kAhead = 24;

  const Text& text_;
  const Part& part_;
  std::uint64_t next_;
  std::uint64_t end_;
  std::uint64_t position_ = 0;
  std::uint64_t key_ = 0;
  bool ended_ = false;
};

// A tree of losers (Knuth, volume 3, 5.4.1) over the readers: one comparison per level and suffix.
class LoserTree {
 public:
  LoserTree(const Text& text, std::vector<PartReader> readers) : order_(text), readers_(std::move(readers)) {
    while (leaves_ < readers_.size()) leaves_ *= 2;
    losers_.assign(leaves_, kNobody);
    winner_ = play(1);
  }

  bool ended() const { return winner_ == kNobody || readers_[winner_].ended(); }

  std::uint64_t next() {
    PartReader& reader = readers_[winner_];
    const std::uint64_t position = reader.position();
    reader.advance();
    std::size_t now = winner_;
    for (std::size_t node = (winner_ + leaves_) / 2; node > 0; node /= 2) {
      if (first(losers_[node], now)) std::swap(losers_[node], now);
    }
    winner_ = now;
    return position;
  }

 private:
  static constexpr std::size_t kNobody = ~std::size_t{0};

  bool first(std::size_t a, std::size_t b) {
    if (a == kNobody || readers_[a].ended()) return false;
    if (b == kNobody || readers_[b].ended()) return true;
    const std::uint64_t key_a = readers_[a].key();
    const std::uint64_t key_b = readers_[b].key();
    return key_a != key_b ? key_a < key_b : order_.before_beyond_key(readers_[a].position(), readers_[b].position());
  }

  std::size_t play(std::size_t node) {
    if (node >= leaves_) return node - leaves_ < readers_.size() ? node - leaves_ : kNobody;
    const std::size_t left = play(2 * node);
    const std::size_t right = play(2 * node + 1);
    const bool left_first = first(left, right);
    losers_[node] = left_first ? right : left;
    return left_first ? left : right;
  }

  SuffixOrder order_;
  std::vector<PartReader> readers_;
  std::vector<std::size_t> losers_;  // [leaves], by node; node 0 is not used
  std::size_t leaves_ = 1;
  std::size_t winner_ = kNobody;
};

// Number of suffixes of a sorted part that precede the suffix `splitter` (a text position).
inline std::uint64_t cut(SuffixOrder& order, const Part& part, std::uint64_t splitter) {
  std::uint64_t low = 0, high = part.tokens();
  while (low < high) {
    const std::uint64_t middle = low + (high - low) / 2;
    const std::uint64_t position = part.position(middle);
    const bool less = position != splitter && order.before(position, splitter);
    (less ? low : high) = less ? middle + 1 : middle;
  }
  return low;
}

// Splits the merge into `pieces` that are independent: [pieces + 1][parts] first ranks, cut at even steps of the
// largest part.
inline std::vector<std::vector<std::uint64_t>> pieces_of(const Text& text, const std::vector<Part>& parts,
                                                         std::uint64_t pieces) {
  const auto largest = std::max_element(parts.begin(), parts.end(),
                                        [](const Part& a, const Part& b) { return a.tokens() < b.tokens(); });
  SuffixOrder order(text);
  std::vector<std::vector<std::uint64_t>> cuts{std::vector<std::uint64_t>(parts.size(), 0)};
  for (std::uint64_t piece = 1; piece < pieces && piece < largest->tokens(); ++piece) {
    const auto rank = static_cast<std::uint64_t>(static_cast<unsigned __int128>(largest->tokens()) * piece / pieces);
    const std::uint64_t splitter = largest->position(rank);
    cuts.emplace_back();
    for (const Part& part : parts) cuts.back().push_back(cut(order, part, splitter));
  }
  cuts.emplace_back();
  for (const Part& part : parts) cuts.back().push_back(part.tokens());
  return cuts;
}

// Merges one piece into the table; `done` counts tokens.
inline void merge_piece(const Text& text, const std::vector<Part>& parts, const std::vector<std::uint64_t>& from,
                        const std::vector<std::uint64_t>& to, const File& table,
                        std::atomic<std::uint64_t>& done, const std::atomic<bool>& stopped) {
  constexpr std::uint64_t every = std::uint64_t{1} << 16;
  std::uint64_t rank = 0;
  std::vector<PartReader> readers;
  for (std::size_t part = 0; part < parts.size(); ++part) {
    rank += from[part];
    if (from[part] < to[part]) readers.emplace_back(text, parts[part], from[part], to[part]);
  }
  TableWriter writer(table, text, rank);
  LoserTree tree(text, std::move(readers));
  std::uint64_t count = 0;
  for (; !tree.ended(); ++count) {
    writer.put(tree.next());
    if (count % every == every - 1) {
      done += every;
      if (stopped) return;
    }
  }
  done += count % every;
  writer.flush();
}

}  // namespace infinigram::build
