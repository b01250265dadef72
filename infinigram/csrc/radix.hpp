// Radix sort by small keys.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace infinigram {

// Sorts by key(item), an unsigned number; only as many low bits as the largest key has are examined.
// O(items * bytes of the largest key).
template <typename Item, typename Key>
void radix_sort(std::vector<Item>& items, Key key) {
  constexpr std::size_t kFew = 256;  // below this a comparison sort is faster
  if (items.size() < kFew) {
    std::sort(items.begin(), items.end(), [&](const Item& a, const Item& b) { return key(a) < key(b); });
    return;
  }
  std::uint64_t seen = 0;
  for (const Item& item : items) seen |= key(item);
  std::vector<Item> sorted(items.size());
  for (int shift = 0; shift < 64 && seen >> shift != 0; shift += 8) {
    if ((seen >> shift & 0xff) == 0) continue;
    std::array<std::size_t, 257> starts{};
    for (const Item& item : items) ++starts[(key(item) >> shift & 0xff) + 1];
    for (std::size_t digit = 1; digit < 257; ++digit) starts[digit] += starts[digit - 1];
    for (const Item& item : items) sorted[starts[key(item) >> shift & 0xff]++] = item;
    std::swap(items, sorted);
  }
}

}  // namespace infinigram
