// Seeded sampling of occurrences, with or without replacement, at a cost independent of their number.
#pragma once

#include <cstdint>
#include <unordered_set>

#include "search/engine.hpp"

namespace infinigram {

// A position returned by a search; `number` is its index among the occurrences in all shards, including removed ones.
struct Hit {
  std::uint64_t shard, pointer_bytes, document, number;
};

struct Sampling {
  std::uint64_t limit = 1;
  std::uint64_t skip = 0;
  std::uint64_t seed = 0;
  bool replacement = false;
  bool distinct_documents = false;
};

// SplitMix64 (Steele, Lea, Flood 2014).
inline std::uint64_t mix(std::uint64_t value) {
  value += 0x9e3779b97f4a7c15;
  value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9;
  value = (value ^ (value >> 27)) * 0x94d049bb133111eb;
  return value ^ (value >> 31);
}

// A seeded permutation of 0 .. size without a table: a Feistel network over the next even number of bits, with cycle walking.
class Permutation {
 public:
  Permutation(std::uint64_t size, std::uint64_t seed) : size_(size), seed_(mix(seed)) {
    while (half_bits_ < 32 && (std::uint64_t{1} << (2 * half_bits_)) < size) ++half_bits_;
    mask_ = (std::uint64_t{1} << half_bits_) - 1;
  }
  std::uint64_t operator()(std::uint64_t at) const {
    do {
      std::uint64_t left = at >> half_bits_;
      std::uint64_t right = at & mask_;
      for (std::uint64_t round = 0; round < 6; ++round) {
        const std::uint64_t turned = left ^ (mix(right ^ mix(seed_ + round)) & mask_);
        left = right;
        right = turned;
      }
      at = left << half_bits_ | right;
    } while (at >= size_);
    return at;
  }

 private:
  std::uint64_t size_, seed_;
  std::uint64_t half_bits_ = 1;
  std::uint64_t mask_ = 0;
};

// Samples from `total` numbered candidates. `accept(number, hit)` fills in the hit, or returns false if it is removed. Without
// replacement (and for distinct documents) candidates come in a seeded order, so `skip` pages through them; `kept` is the number
// that would be accepted.
template <typename Accept>
std::vector<Hit> draw(std::uint64_t total, std::int64_t kept, const Sampling& how, Accept accept) {
  std::vector<Hit> drawn;
  if (kept <= 0 || total == 0) return drawn;
  std::unordered_set<std::uint64_t> seen;
  std::uint64_t skipped = 0;
  const Permutation order(total, how.seed);
  for (std::uint64_t turn = 0; drawn.size() < how.limit; ++turn) {
    if (!how.replacement && turn == total) break;
    const std::uint64_t number =
        how.replacement ? static_cast<std::uint64_t>((static_cast<unsigned __int128>(mix(mix(how.seed) + turn)) * total) >> 64)
                        : order(turn);
    Hit hit{};
    if (!accept(number, hit)) continue;
    hit.number = number;
    if (how.distinct_documents && !seen.insert(mix(hit.shard) ^ hit.document).second) continue;
    if (skipped < how.skip) {
      ++skipped;
    } else {
      drawn.push_back(hit);
    }
  }
  return drawn;
}

struct Drawn {
  std::int64_t count = 0;
  std::vector<Hit> hits;
};

// The number of occurrences of a query outside removed documents, and `how.limit` of them.
template <typename Token>
Drawn draw_hits(const Engine<Token>& engine, Query<Token> query, const Sampling& how) {
  Drawn drawn;
  const std::vector<Range> ranges = find_ranges(engine, query);
  std::uint64_t total = 0;
  for (std::size_t s = 0; s < engine.main(); ++s) total += ranges[s].size();
  drawn.count = count_one(engine, query);
  drawn.hits = draw(total, drawn.count, how, [&](std::uint64_t number, Hit& hit) {
    std::size_t s = 0;
    for (; number >= ranges[s].size(); ++s) number -= ranges[s].size();
    const Shard<Token>& shard = engine.shard(s);
    hit.shard = s;
    hit.pointer_bytes = shard.pointer(ranges[s].begin + number);
    if (hits_removed(shard, hit.pointer_bytes, query)) return false;
    hit.document = shard.place_at(hit.pointer_bytes / sizeof(Token)).document;
    return true;
  });
  return drawn;
}

}  // namespace infinigram
