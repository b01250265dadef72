// Sorting one part of a text, with its suffixes in the order that they have in the whole text.
//
// If a part ends before the text does, its suffixes extend beyond it. Let c be the part's last symbol, and call a position high
// if the suffix after it is at least the one that starts right after the part. Symbols above c, high c's and the last c are
// incremented by one: then the order within the part alone, with its end as the smallest symbol, equals the order in the whole
// text (Ferragina, Gagie and Manzini, "Lightweight Data Indexing and Compression in External Memory", 2012). Repeats across the
// border cost linear time and no overlap.
#pragma once

#include <cstdint>
#include <vector>

#include "build/memory.hpp"
#include "build/sais.hpp"
#include "build/text.hpp"
#include "tokens.hpp"

namespace infinigram::build {

// The largest part: positions in a part are signed, and some are computed ahead.
inline constexpr std::uint64_t kMaxPartTokens = (std::uint64_t{1} << 31) - 1024;

// The distinct tokens of a part, numbered densely in order: fewer and smaller buckets.
template <typename Token>
class Alphabet {
 public:
  Alphabet(const Text& text, std::uint64_t begin, std::uint64_t end) : pages_(kPages) {
    for (std::uint64_t at = begin; at < end; ++at) {
      const Token token = load_token<Token>(text.data() + at * sizeof(Token));
      auto& page = pages_[token / kPageTokens];
      if (page.empty()) page.resize(kPageTokens, kNone);
      if (page[token % kPageTokens] == kNone) {
        page[token % kPageTokens] = 0;
        found_.push_back(token);
      }
      if (at % kReleaseTokens == 0) text.release(begin, at);
    }
    std::sort(found_.begin(), found_.end(), [](Token a, Token b) { return order_key(a) < order_key(b); });
    for (const Token token : found_) pages_[token / kPageTokens][token % kPageTokens] = size_++;
  }

  bool has(Token token) const {
    const auto& page = pages_[token / kPageTokens];
    return !page.empty() && page[token % kPageTokens] != kNone;
  }
  // Number of these tokens that sort before a token that is not among them.
  std::uint32_t before(Token token) const {
    const auto less = [](Token a, Token b) { return order_key(a) < order_key(b); };
    return static_cast<std::uint32_t>(std::lower_bound(found_.begin(), found_.end(), token, less) - found_.begin());
  }
  std::uint32_t rank(Token token) const { return pages_[token / kPageTokens][token % kPageTokens]; }
  std::uint32_t size() const { return size_; }

  static constexpr std::uint64_t kReleaseTokens = std::uint64_t{1} << 22;

 private:
  static constexpr std::size_t kPageTokens = sizeof(Token) == 1 ? 256 : 4096;
  static constexpr std::size_t kPages = (std::size_t{separator<Token>} + 1) / kPageTokens;
  static constexpr std::uint32_t kNone = ~std::uint32_t{0};

  std::vector<std::vector<std::uint32_t>> pages_;  // by token id; only those of ids that occur
  std::vector<Token> found_;                       // in order
  std::uint32_t size_ = 0;
};

// For each position of [begin, end], whether its suffix is at least the one at `end`, by the Z algorithm (Gusfield 1997).
template <typename Token>
class HighPositions {
 public:
  HighPositions(const Text& text, std::uint64_t begin, std::uint64_t end)
      : text_(text), end_(end), rest_(text.tokens() - end), bits_((end - begin) / 64 + 1) {
    std::uint64_t window = begin, window_end = begin;  // [window, window_end) agrees with what starts at `end`
    for (std::uint64_t at = begin; at < end; ++at) {
      std::uint64_t same = at < window_end ? std::min(agreement(at - window), window_end - at) : 0;
      if (at + same >= window_end) {
        while (same < rest_ && token(at + same) == token(end_ + same)) ++same;
        window = at;
        window_end = at + same;
      }
      const bool high = same == rest_ || order_key(token(at + same)) > order_key(token(end_ + same));
      if (high) bits_[(at - begin) / 64] |= std::uint64_t{1} << (at - begin) % 64;
      if (at % Alphabet<Token>::kReleaseTokens == 0) text.release(begin, at);
    }
    bits_[(end - begin) / 64] |= std::uint64_t{1} << (end - begin) % 64;
    std::vector<std::uint64_t>().swap(agreements_);
  }

  // `offset` counts from `begin`.
  bool operator[](std::uint64_t offset) const { return (bits_[offset / 64] >> offset % 64 & 1) != 0; }

 private:
  Token token(std::uint64_t at) const { return load_token<Token>(text_.data() + at * sizeof(Token)); }

  // Number of tokens after `end` + shift that match those after `end`; computed as far as matches extend.
  std::uint64_t agreement(std::uint64_t shift) {
    if (agreements_.empty()) agreements_.push_back(rest_);
    while (agreements_.size() <= shift) {
      const std::uint64_t at = agreements_.size();
      std::uint64_t same = at < inner_end_ ? std::min(agreements_[at - inner_], inner_end_ - at) : 0;
      if (at + same >= inner_end_) {
        while (at + same < rest_ && token(end_ + at + same) == token(end_ + same)) ++same;
        inner_ = at;
        inner_end_ = at + same;
      }
      agreements_.push_back(same);
    }
    return agreements_[shift];
  }

  const Text& text_;
  std::uint64_t end_;
  std::uint64_t rest_;
  std::vector<std::uint64_t> bits_;
  std::vector<std::uint64_t> agreements_;
  std::uint64_t inner_ = 0;
  std::uint64_t inner_end_ = 0;
};

template <typename Token, typename Symbol>
HugeArray<Symbol> symbols_of(const Text& text, std::uint64_t begin, std::uint64_t end, const Alphabet<Token>& alphabet) {
  HugeArray<Symbol> symbols(end - begin);
  for (std::uint64_t at = begin; at < end; ++at) {
    symbols[at - begin] = static_cast<Symbol>(alphabet.rank(load_token<Token>(text.data() + at * sizeof(Token))));
    if (at % Alphabet<Token>::kReleaseTokens == 0) text.release(begin, at);
  }
  text.release(begin, end);
  if (end == text.tokens() || begin == end) return symbols;
  const HighPositions<Token> high(text, begin, end);
  const Symbol last = symbols[end - begin - 1];
  for (std::uint64_t at = 0; at < end - begin; ++at) {
    const Symbol symbol = symbols[at];
    symbols[at] = static_cast<Symbol>(symbol + (symbol > last || (symbol == last && high[at + 1])));
  }
  text.release(begin, text.tokens());
  return symbols;
}

template <typename Token, typename Symbol>
HugeArray<Position> sorted_symbols(const Text& text, std::uint64_t begin, std::uint64_t end,
                                   const Alphabet<Token>& alphabet, const Tick& tick) {
  const HugeArray<Symbol> symbols = symbols_of<Token, Symbol>(text, begin, end, alphabet);
  HugeArray<Position> table(end - begin);
  SuffixSorter<Symbol>(symbols.span(), table.span(), static_cast<Position>(alphabet.size() + 1), {}, tick).sort();
  return table;
}

// The positions of [begin, end), counted from `begin`, in the order of their suffixes in the whole text.
template <typename Token>
HugeArray<Position> sorted_part(const Text& text, std::uint64_t begin, std::uint64_t end, const Tick& tick) {
  assert(begin <= end && end <= text.tokens() && end - begin <= kMaxPartTokens);
  const Alphabet<Token> alphabet(text, begin, end);
  if (alphabet.size() < 1U << 8) return sorted_symbols<Token, std::uint8_t>(text, begin, end, alphabet, tick);
  if (alphabet.size() < 1U << 16) return sorted_symbols<Token, std::uint16_t>(text, begin, end, alphabet, tick);
  return sorted_symbols<Token, std::uint32_t>(text, begin, end, alphabet, tick);
}

}  // namespace infinigram::build
