// Long common prefixes in repetitive text, by fingerprints (Karp and Rabin 1987) of its prefixes.
//
// Two polynomials modulo 2^61 - 1 with bases drawn anew in every process: two different passages of 10^9 tokens agree in both
// with probability below 10^-18, for any text. Takes half a byte per token, and is built only when a merge meets a repeat of
// more than a thousand tokens.
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cstdint>
#include <random>
#include <vector>

#include "tokens.hpp"

namespace infinigram::build {

class Fingerprints {
 public:
  Fingerprints(const Byte* text, std::uint64_t bytes, std::uint64_t width)
      : text_(text), width_(width), tokens_(bytes / width) {
    std::random_device random;
    std::uniform_int_distribution<std::uint64_t> draw(std::uint64_t{1} << 40, kPrime - 2);
    for (auto& base : bases_) base = draw(random);
    powers_.push_back(bases_);
    for (int bit = 1; bit < 64; ++bit) powers_.push_back(product(powers_.back(), powers_.back()));
    samples_.reserve(tokens_ / kEvery + 1);
    Pair value{0, 0};
    for (std::uint64_t at = 0; at < tokens_; ++at) {
      if (at % kEvery == 0) samples_.push_back(value);
      value = extended(value, at);
    }
    if (tokens_ % kEvery == 0) samples_.push_back(value);
  }

  // How many tokens after `left` and `right` agree, rounded down by at most `kEvery`; the first `same` are known to agree.
  std::uint64_t common_tokens(std::uint64_t left, std::uint64_t right, std::uint64_t same) const {
    const std::uint64_t rest = tokens_ - std::max(left, right);
    // Steps are whole numbers of samples after `left`, so that only the prefix at `right` needs extra work.
    std::uint64_t known = (left + same + kEvery - 1) / kEvery * kEvery - left;
    if (known > rest || !equal(left, right, known)) return same;
    std::uint64_t step = kEvery;
    while (known + step <= rest && equal(left + known, right + known, step)) {
      known += step;
      step *= 2;
    }
    for (; step >= kEvery; step /= 2) {
      if (known + step <= rest && equal(left + known, right + known, step)) known += step;
    }
    return known;
  }

 private:
  using Pair = std::array<std::uint64_t, 2>;
  static constexpr std::uint64_t kPrime = (std::uint64_t{1} << 61) - 1;
  static constexpr std::uint64_t kEvery = 32;

  static std::uint64_t product(std::uint64_t a, std::uint64_t b) {
    const auto wide = static_cast<unsigned __int128>(a) * b;
    const std::uint64_t sum = static_cast<std::uint64_t>(wide & kPrime) + static_cast<std::uint64_t>(wide >> 61);
    return sum >= kPrime ? sum - kPrime : sum;
  }
  static Pair product(const Pair& a, const Pair& b) { return {product(a[0], b[0]), product(a[1], b[1])}; }

  Pair extended(Pair value, std::uint64_t at) const {
    const std::uint64_t symbol = load_entry(text_ + at * width_, static_cast<int>(width_)) + 1;
    for (int each = 0; each < 2; ++each) {
      value[each] = product(value[each], bases_[each]) + symbol;
      if (value[each] >= kPrime) value[each] -= kPrime;
    }
    return value;
  }

  Pair prefix(std::uint64_t end) const {
    Pair value = samples_[end / kEvery];
    for (std::uint64_t at = end / kEvery * kEvery; at < end; ++at) value = extended(value, at);
    return value;
  }

  Pair piece(std::uint64_t begin, std::uint64_t length) const {
    Pair power{1, 1};
    for (std::uint64_t bits = length; bits != 0; bits &= bits - 1) {
      power = product(power, powers_[static_cast<std::size_t>(std::countr_zero(bits))]);
    }
    const Pair whole = prefix(begin + length);
    const Pair front = product(prefix(begin), power);
    return {whole[0] >= front[0] ? whole[0] - front[0] : whole[0] + kPrime - front[0],
            whole[1] >= front[1] ? whole[1] - front[1] : whole[1] + kPrime - front[1]};
  }

  bool equal(std::uint64_t left, std::uint64_t right, std::uint64_t length) const {
    return piece(left, length) == piece(right, length);
  }

  const Byte* text_;
  std::uint64_t width_;
  std::uint64_t tokens_;
  Pair bases_;
  std::vector<Pair> powers_;   // of the bases, with exponents 1, 2, 4, ...
  std::vector<Pair> samples_;  // of every prefix of a multiple of kEvery tokens
};

}  // namespace infinigram::build
