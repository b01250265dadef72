// Suffix sorting in linear time by induced copying: SA-IS, from Nong, Zhang and Chan, "Two Efficient Algorithms for
// Linear Time Suffix Array Construction" (2009). The end of the text counts as smaller than every symbol.
//
// Terms: a suffix is of type S if it is smaller than the next suffix, and of type L if it is larger; an S suffix right after an
// L suffix is an LMS suffix. Sorted LMS suffixes induce the order of all L suffixes in one pass over the table, and these induce
// the order of all S suffixes in a second pass. LMS suffixes themselves are sorted by inducing their substrings, naming them,
// and sorting the string of names (recursively).
//
// Every pass accesses text and table at random, so upcoming accesses are prefetched: the text of an entry `kAhead` * 2 (or 3)
// steps before its turn, then (names have large alphabets) its bucket, then the slot.
#pragma once

#include <algorithm>
#include <cassert>
#include <cstdint>
#include <functional>
#include <span>
#include <type_traits>

#include "build/lms.hpp"
#include "build/memory.hpp"

namespace infinigram::build {

// Called after each pass over text and table with that pass's share of the work; may throw to stop.
using Tick = std::function<void(double)>;

template <typename Symbol>
class SuffixSorter {
 public:
  // Fills `table` with the positions of `text` in the order of their suffixes; symbols are below `alphabet`.
  // `spare` is scratch memory for the buckets.
  SuffixSorter(std::span<const Symbol> text, std::span<Position> table, Position alphabet, std::span<Position> spare,
               Tick tick = [](double) {})
      : text_(text.data()),
        table_(table.data()),
        size_(static_cast<Position>(text.size())),
        alphabet_(alphabet),
        tick_(std::move(tick)) {
    assert(text.size() == table.size());
    const auto wanted = static_cast<std::size_t>(alphabet);
    if (spare.size() < wanted) own_ = HugeArray<Position>(wanted);
    bucket_ = spare.size() < wanted ? own_.data() : spare.data();
    if (spare.size() >= 2 * wanted) {
      count_ = spare.data() + wanted;
    } else {
      own_count_ = HugeArray<Position>(wanted);
      count_ = own_count_.data();
    }
  }

  void sort() {
    if (size_ == 0) return;
    if (size_ == 1) {
      table_[0] = 0;
      return;
    }
    std::fill(count_, count_ + alphabet_, 0);
    for (Position at = 0; at < size_; ++at) {
      if constexpr (kNames) __builtin_prefetch(&count_[text_[std::min(at + kAhead, size_ - 1)]], 1);
      ++count_[text_[at]];
    }
    const Position found = scatter_lms();
    tick_(0.1);
    if (found > 1) {
      induce_substrings_l();
      tick_(0.1);
      induce_substrings_s();
      tick_(0.1);
      sort_lms(found);
    }
    tick_(0.4);
    place_lms(found);
    induce_l();
    tick_(0.15);
    induce_s();
    tick_(0.15);
  }

 private:
  static constexpr bool kNames = std::is_same_v<Symbol, Position>;  // the text is a string of names
  static constexpr Position kAhead = 32;

  void buckets_start() {
    Position sum = 0;
    for (Position symbol = 0; symbol < alphabet_; ++symbol) {
      bucket_[symbol] = sum;
      sum += count_[symbol];
    }
  }

  void buckets_end() {
    Position sum = 0;
    for (Position symbol = 0; symbol < alphabet_; ++symbol) {
      sum += count_[symbol];
      bucket_[symbol] = sum;
    }
  }

  // Puts each LMS position minus one at the end of its bucket; returns their number. The leftmost is skipped: no
  // LMS substring ends there.
  Position scatter_lms() {
    std::fill(table_, table_ + size_, 0);
    buckets_end();
    Position found = 0;
    Position leftmost = 0;
    Position* last_slot = nullptr;
    for_lms(text_, size_, [&](const Position* block, Position filled) {
      for (Position each = 0; each < filled; ++each) {
        if constexpr (kNames) __builtin_prefetch(&bucket_[text_[block[std::min(each + kAhead, filled - 1)]]], 1);
        last_slot = &table_[--bucket_[text_[block[each]]]];
        *last_slot = block[each] - 1;
      }
      if (filled > 0) leftmost = block[filled - 1];
      found += filled;
    });
    if (last_slot != nullptr) *last_slot = 0;
    if (found == 1) table_[0] = leftmost;  // a single one is sorted
    return found;
  }

  // Prefetches the data of the entry a few steps ahead. `entry(at)` is the text position it will read, or 0.
  template <typename Entry>
  void fetch_ahead(Position at, Position step, Entry entry) const {
    constexpr Position stages = kNames ? 3 : 2;
    const Position far = at + step * kAhead * stages;
    if (far < 0 || far >= size_) return;
    __builtin_prefetch(text_ + entry(far));
    if constexpr (kNames) __builtin_prefetch(&bucket_[text_[entry(at + step * kAhead * 2)]], 1);
    __builtin_prefetch(&table_[bucket_[text_[entry(at + step * kAhead)]] - (step < 0)], 1);
  }

  // In the two passes over LMS substrings, an entry is the position left of a sorted suffix that is still to be processed;
  // a negative entry waits for the other pass; zero is empty.
  void induce_substrings_l() {
    buckets_start();
    {
      const Symbol last = text_[size_ - 1];
      const Position left = size_ - 2;
      table_[bucket_[last]++] = text_[left] < last ? ~left : left;
    }
    for (Position at = 0; at < size_; ++at) {
      fetch_ahead(at, 1, [&](Position slot) { return std::max(table_[slot], 0); });
      const Position entry = table_[at];
      if (entry > 0) {
        const Symbol symbol = text_[entry];
        const Position left = entry - 1;
        table_[at] = 0;
        table_[bucket_[symbol]++] = text_[left] < symbol ? ~left : left;
      } else {
        table_[at] = entry < 0 ? ~entry : 0;
      }
    }
  }

  // Leaves the complements of the sorted LMS positions in the table.
  void induce_substrings_s() {
    buckets_end();
    for (Position at = size_ - 1; at >= 0; --at) {
      fetch_ahead(at, -1, [&](Position slot) { return std::max(table_[slot], 0); });
      const Position entry = table_[at];
      if (entry > 0) {
        const Symbol symbol = text_[entry];
        table_[at] = 0;
        table_[--bucket_[symbol]] = text_[entry - 1] > symbol ? ~entry : entry - 1;
      }
    }
  }

  // Reorders LMS positions from substring order to suffix order, at the front of the table.
  void sort_lms(Position found) {
    Position kept = 0;
    for (Position at = 0; at < size_; ++at) {
      const Position entry = table_[at];
      table_[kept] = ~entry;
      kept += entry < 0;
    }
    assert(kept == found);
    const Position names = name_substrings(found);
    Position* string = table_ + size_ - found;
    if (names == found) return;
    Position to = found;
    for (Position from = found + size_ / 2 - 1; from >= found; --from) {  // names in the order of the text
      if (table_[from] > 0) string[--to] = table_[from] - 1;
    }
    assert(to == 0);
    {
      const auto spare = static_cast<std::size_t>(size_ - 2 * found);
      SuffixSorter<Position> sorter({string, static_cast<std::size_t>(found)}, {table_, static_cast<std::size_t>(found)},
                                    names, {table_ + found, spare});
      sorter.sort();
    }
    to = found;
    for_lms(text_, size_, [&](const Position* block, Position filled) {
      for (Position each = 0; each < filled; ++each) string[--to] = block[each];
    });
    for (Position at = 0; at < found; ++at) {
      __builtin_prefetch(&string[table_[std::min(at + kAhead, found - 1)]]);
      table_[at] = string[table_[at]];
    }
  }

  // Gives equal LMS substrings equal names from 1 stored at `found + position / 2`; returns the number of names.
  Position name_substrings(Position found) {
    Position* at_half = table_ + found;
    std::fill(at_half, table_ + size_, 0);
    Position next = size_ - 1;
    for_lms(text_, size_, [&](const Position* block, Position filled) {
      for (Position each = 0; each < filled; ++each) {
        at_half[block[each] / 2] = next - block[each] + 1;  // its length, with the first symbol of the next
        next = block[each];
      }
    });
    Position names = 0;
    Position before = 0;
    Position length_before = 0;
    for (Position at = 0; at < found; ++at) {
      const Position ahead = table_[std::min(at + kAhead, found - 1)];
      __builtin_prefetch(&at_half[ahead / 2], 1);
      __builtin_prefetch(&text_[ahead]);
      const Position here = table_[at];
      const Position length = at_half[here / 2];
      bool equal = length == length_before && before + length < size_;
      for (Position step = 0; equal && step < length; ++step) equal = text_[here + step] == text_[before + step];
      names += !equal;
      at_half[here / 2] = names;
      before = here;
      length_before = length;
    }
    return names;
  }

  // Moves the `found` sorted LMS positions from the front to the ends of their buckets; the rest becomes 0.
  void place_lms(Position found) {
    std::fill(table_ + found, table_ + size_, 0);
    buckets_end();
    for (Position at = found - 1; at >= 0; --at) {
      __builtin_prefetch(&text_[table_[std::max(at - kAhead, 0)]]);
      const Position lms = table_[at];
      table_[at] = 0;
      table_[--bucket_[text_[lms]]] = lms;
    }
  }

  // In the last two passes, each entry is the sorted suffix itself; it is stored as its complement once its left neighbour is placed,
  // or if the left neighbour belongs to the other pass.
  void induce_l() {
    buckets_start();
    {
      const Position last = size_ - 1;
      table_[bucket_[text_[last]]++] = text_[last - 1] < text_[last] ? ~last : last;
    }
    for (Position at = 0; at < size_; ++at) {
      fetch_ahead(at, 1, [&](Position slot) { return std::max(table_[slot] - 1, 0); });
      const Position entry = table_[at];
      table_[at] = ~entry;
      if (entry > 0) {
        const Position left = entry - 1;
        const Symbol symbol = text_[left];
        table_[bucket_[symbol]++] = left > 0 && text_[left - 1] < symbol ? ~left : left;
      }
    }
  }

  void induce_s() {
    buckets_end();
    for (Position at = size_ - 1; at >= 0; --at) {
      fetch_ahead(at, -1, [&](Position slot) { return std::max(table_[slot] - 1, 0); });
      const Position entry = table_[at];
      if (entry > 0) {
        const Position left = entry - 1;
        const Symbol symbol = text_[left];
        table_[--bucket_[symbol]] = left == 0 || text_[left - 1] > symbol ? ~left : left;
      } else {
        table_[at] = ~entry;
      }
    }
  }

  const Symbol* text_;
  Position* table_;
  Position size_;
  Position alphabet_;
  Tick tick_;
  Position* bucket_ = nullptr;  // [alphabet], where the next suffix of a symbol goes
  Position* count_ = nullptr;   // [alphabet]
  HugeArray<Position> own_;
  HugeArray<Position> own_count_;
};

}  // namespace infinigram::build
