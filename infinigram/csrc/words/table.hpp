// Cache of the tokens of words: a hash map from bytes to ids, of bounded size.
#pragma once

#include <cstdint>
#include <cstring>
#include <span>
#include <string_view>
#include <vector>

namespace infinigram::words {

// The lookup key of a word. A word of up to fifteen bytes is its own key, so equal keys mean equal words; the key of a longer word is a
// hash, and its bytes are compared as well.
struct Key {
  std::uint64_t head = 0;
  std::uint64_t tail = 0;  // the highest byte: 1 + the length of a short word, 255 for a long one, never 0
  std::uint64_t hash = 0;
};

inline constexpr std::size_t kShortBytes = 15;

inline std::uint64_t mixed(std::uint64_t a, std::uint64_t b) {  // after wyhash: both halves of a product of 128 bits
  const auto product = static_cast<unsigned __int128>(a ^ 0x9e3779b97f4a7c15) * (b ^ 0xd1b54a32d192ed03);
  return static_cast<std::uint64_t>(product) ^ static_cast<std::uint64_t>(product >> 64);
}

// `end` is the end of the text that contains `word`: bytes after the word, up to there, may be read.
inline Key key_of(std::string_view word, const char* end) {
  Key key;
  const std::size_t size = word.size();
  if (size <= kShortBytes) [[likely]] {
    if (static_cast<std::size_t>(end - word.data()) >= 16) [[likely]] {
      std::memcpy(&key.head, word.data(), 8);
      std::memcpy(&key.tail, word.data() + 8, 8);
      if (size < 8) {
        key.head &= (std::uint64_t{1} << 8 * size) - 1;
        key.tail = 0;
      } else {
        key.tail &= (std::uint64_t{1} << 8 * (size - 8)) - 1;
      }
    } else {
      std::memcpy(&key.head, word.data(), size < 8 ? size : 8);
      if (size > 8) std::memcpy(&key.tail, word.data() + 8, size - 8);
    }
    key.tail |= static_cast<std::uint64_t>(size + 1) << 56;
    key.hash = mixed(key.head, key.tail);
    return key;
  }
  std::uint64_t hash = size;
  std::size_t at = 0;
  for (; at + 16 <= size; at += 16) {
    std::uint64_t a, b;
    std::memcpy(&a, word.data() + at, 8);
    std::memcpy(&b, word.data() + at + 8, 8);
    hash = mixed(hash ^ a, b);
  }
  std::uint64_t last[2] = {0, 0};
  std::memcpy(last, word.data() + at, size - at);
  hash = mixed(hash ^ last[0], last[1]);
  return {hash, std::uint64_t{255} << 56, mixed(hash, size)};
}

class WordTable {
 public:
  // `most_bytes` bounds its size; when it is full, it is cleared.
  explicit WordTable(std::size_t most_bytes) : most_bytes_(most_bytes) { clear(); }

  void prefetch(const Key& key) const { __builtin_prefetch(&slots_[key.hash & mask()]); }

  // Appends the tokens of a word to `ids`; returns whether the word is known.
  bool find(const Key& key, std::string_view word, std::vector<std::uint32_t>& ids) const {
    for (std::size_t at = key.hash & mask();; at = (at + 1) & mask()) {
      const Slot& slot = slots_[at];
      if (slot.tail == 0) return false;
      if (!is(slot, key, word)) continue;
      if (slot.count <= kInline) [[likely]] {
        const std::size_t size = ids.size();
        ids.resize(size + slot.count);
        for (std::uint32_t i = 0; i < slot.count; ++i) ids[size + i] = slot.ids[i];
      } else {
        ids.insert(ids.end(), ids_.begin() + slot.ids[0], ids_.begin() + slot.ids[0] + slot.count);
      }
      return true;
    }
  }

  // Inserts the tokens of a word, unless it is known.
  void insert(std::string_view word, std::span<const std::uint32_t> ids) {
    const Key key = key_of(word, word.data() + word.size());
    const bool is_full = 4 * (used_ + 1) > 3 * slots_.size();
    const std::size_t more_bytes = (is_full ? slots_.size() * sizeof(Slot) : 0) + word.size() + 4 * (ids.size() + 1);
    if (bytes() + more_bytes > most_bytes_) {
      clear();
    } else if (is_full) {
      grow();
    }
    std::size_t at = key.hash & mask();
    for (; slots_[at].tail != 0; at = (at + 1) & mask()) {
      if (is(slots_[at], key, word)) return;
    }
    Slot& slot = slots_[at];
    slot = {key.head, key.tail, static_cast<std::uint32_t>(ids.size()), {}};
    if (word.size() > kShortBytes) {
      slot.tail |= texts_.size();
      const auto size = static_cast<std::uint32_t>(word.size());
      const char* bytes = reinterpret_cast<const char*>(&size);
      texts_.insert(texts_.end(), bytes, bytes + sizeof(size));
      texts_.insert(texts_.end(), word.begin(), word.end());
    }
    if (ids.size() <= kInline) {
      std::copy(ids.begin(), ids.end(), slot.ids);
    } else {
      slot.ids[0] = static_cast<std::uint32_t>(ids_.size());
      ids_.insert(ids_.end(), ids.begin(), ids.end());
    }
    ++used_;
  }

  std::size_t words() const { return used_; }

 private:
  static constexpr std::uint32_t kInline = 3;
  struct Slot {
    std::uint64_t head = 0;
    std::uint64_t tail = 0;  // 0: free. For a long word, the lower bytes are the offset of its length and bytes in `texts_`
    std::uint32_t count = 0;
    std::uint32_t ids[kInline] = {};  // the tokens, or their offset in `ids_`
  };
  static_assert(sizeof(Slot) == 32);

  std::size_t mask() const { return slots_.size() - 1; }
  std::size_t bytes() const { return slots_.size() * sizeof(Slot) + texts_.size() + 4 * ids_.size(); }

  bool is(const Slot& slot, const Key& key, std::string_view word) const {
    if (slot.head != key.head) return false;
    if (word.size() <= kShortBytes) return slot.tail == key.tail;
    return slot.tail >> 56 == 255 && text_of(slot) == word;
  }

  std::string_view text_of(const Slot& slot) const {
    const char* at = texts_.data() + (slot.tail & ~(std::uint64_t{255} << 56));
    std::uint32_t size;
    std::memcpy(&size, at, sizeof(size));
    return {at + sizeof(size), size};
  }

  void clear() {
    used_ = 0;
    slots_.assign(1 << 12, Slot{});
    texts_.clear();
    ids_.clear();
  }

  void grow() {
    std::vector<Slot> old(2 * slots_.size());
    old.swap(slots_);
    for (const Slot& slot : old) {
      if (slot.tail == 0) continue;
      const bool is_short = slot.tail >> 56 != 255;
      std::size_t at = (is_short ? mixed(slot.head, slot.tail) : mixed(slot.head, text_of(slot).size())) & mask();
      while (slots_[at].tail != 0) at = (at + 1) & mask();
      slots_[at] = slot;
    }
  }

  std::size_t most_bytes_;
  std::size_t used_ = 0;
  std::vector<Slot> slots_;
  std::vector<char> texts_;
  std::vector<std::uint32_t> ids_;
};

}  // namespace infinigram::words
