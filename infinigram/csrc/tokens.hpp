// Tokens and table entries as the infini-gram format stores them. Everything on disk is little-endian.
#pragma once

#include <bit>
#include <cstdint>
#include <cstring>
#include <limits>

namespace infinigram {

static_assert(std::endian::native == std::endian::little, "the files are little-endian and mapped without conversion");

using Byte = std::uint8_t;

// The separator before every document; no tokenizer may use this id.
template <typename Token>
inline constexpr Token separator = std::numeric_limits<Token>::max();

template <typename Token>
Token load_token(const Byte* at) {
  Token token;
  std::memcpy(&token, at, sizeof(Token));
  return token;
}

// The key that the suffix array is ordered by: suffixes compare as bytes, so a token counts as a big-endian integer.
constexpr std::uint8_t order_key(std::uint8_t token) { return token; }
constexpr std::uint16_t order_key(std::uint16_t token) { return __builtin_bswap16(token); }
constexpr std::uint32_t order_key(std::uint32_t token) { return __builtin_bswap32(token); }

// The first eight bytes of a suffix of `left` bytes as an integer that sorts like the suffix; missing bytes of a short suffix count as 0.
inline std::uint64_t suffix_key(const Byte* at, std::uint64_t left) {
  std::uint64_t bytes = 0;
  std::memcpy(&bytes, at, left < 8 ? left : 8);
  return __builtin_bswap64(bytes);
}

// Length in bytes of the common prefix of two positions: `same` bytes are known to agree, and at most `limit` are examined.
inline std::uint64_t common_bytes(const Byte* a, const Byte* b, std::uint64_t same, std::uint64_t limit) {
  for (; same + 8 <= limit; same += 8) {
    std::uint64_t x, y;
    std::memcpy(&x, a + same, 8);
    std::memcpy(&y, b + same, 8);
    if (x != y) return same + static_cast<std::uint64_t>(std::countr_zero(x ^ y)) / 8;
  }
  while (same < limit && a[same] == b[same]) ++same;
  return same;
}

// Bytes of one table entry: as many as needed for a byte offset into a text of this size.
constexpr int entry_bytes(std::uint64_t text_bytes) {
  int bits = 0;
  while (bits < 64 && (std::uint64_t{1} << bits) < text_bytes) ++bits;
  return (bits + 7) / 8 == 0 ? 1 : (bits + 7) / 8;
}

inline std::uint64_t load_entry(const Byte* at, int bytes) {
  std::uint64_t entry = 0;
  // entries of a one-byte text take none, and an empty table has no address
  if (bytes != 0) std::memcpy(&entry, at, static_cast<std::size_t>(bytes));
  return entry;
}

}  // namespace infinigram
