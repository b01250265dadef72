// The order of two suffixes of a text, exact at any depth and fast in repetitive text.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "build/text.hpp"

namespace infinigram::build {

// Compares suffixes and caches long repeats, so every thread needs its own instance.
//
// Suffixes of the same two passages are compared again and again, always at the same distance. The end of a long match between
// two passages is cached under their distance, so a later comparison inside it knows the first difference at once. Everything
// else is compared byte by byte at first, then by fingerprints.
class SuffixOrder {
 public:
  explicit SuffixOrder(const Text& text) : text_(text), repeats_(std::size_t{1} << kSlotBits) {}

  // Whether the suffix at `left` (a token position) sorts before the one at `right`; the two differ.
  bool before(std::uint64_t left, std::uint64_t right) {
    const std::uint64_t key_left = text_.key(left);
    const std::uint64_t key_right = text_.key(right);
    return key_left != key_right ? key_left < key_right : before_beyond_key(left, right);
  }

  // Same, for suffixes whose keys are known to agree.
  bool before_beyond_key(std::uint64_t left, std::uint64_t right) {
    const std::uint64_t low = std::min(left, right) * text_.width();
    const std::uint64_t high = std::max(left, right) * text_.width();
    const std::uint64_t rest = text_.bytes() - high;  // the later suffix ends first
    std::uint64_t same = common_bytes(text_.data() + low, text_.data() + high, std::min<std::uint64_t>(rest, 8), std::min(rest, kShortBytes));
    if (same == kShortBytes && same < rest) same = long_agreement(low, high, rest);
    if (same == rest) return left > right;  // the shorter one is smaller
    const bool low_first = text_.data()[low + same] < text_.data()[high + same];
    return low_first == (left < right);
  }

 private:
  struct Repeat {
    std::uint64_t distance = 0, begin = 0, end = 0;  // in bytes: [begin, end) equals the bytes `distance` after it
  };
  static constexpr int kSlotBits = 14;
  static constexpr std::uint64_t kShortBytes = 64;
  static constexpr std::uint64_t kDirectBytes = 2048;

  std::uint64_t long_agreement(std::uint64_t low, std::uint64_t high, std::uint64_t rest) {
    const std::uint64_t distance = high - low;
    Repeat& known = repeats_[distance * 0x9E3779B97F4A7C15u >> (64 - kSlotBits)];
    if (known.distance == distance && known.begin <= low && low < known.end) return known.end - low;
    const std::uint64_t direct = std::min(rest, kDirectBytes);
    std::uint64_t same = common_bytes(text_.data() + low, text_.data() + high, kShortBytes, direct);
    if (same == direct && direct < rest) {
      const std::uint64_t width = text_.width();
      const std::uint64_t skipped = text_.fingerprints().common_tokens(low / width, high / width, same / width) * width;
      same = common_bytes(text_.data() + low, text_.data() + high, skipped, rest);
    }
    known = {distance, low, low + same};
    return same;
  }

  const Text& text_;
  std::vector<Repeat> repeats_;
};

}  // namespace infinigram::build
