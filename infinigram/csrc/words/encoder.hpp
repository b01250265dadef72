// Texts to tokens by their words: the tokens of a known word are copied, those of a new one are requested.
#pragma once

#include <array>
#include <mutex>
#include <shared_mutex>
#include <unordered_map>

#include "words/table.hpp"
#include "words/words.hpp"

namespace infinigram::words {

// A partly encoded batch of texts: the tokens of known words, and the positions of those of new words.
struct Draft {
  struct Hole {
    std::size_t at;  // in ids
    std::uint32_t word;
  };
  struct End {  // of a text
    std::size_t ids, holes;
  };
  std::vector<std::uint32_t> ids;
  std::vector<Hole> holes;
  std::vector<End> ends;
  std::vector<std::string_view> new_words;  // each once
};

// Shared by all threads. No thread waits for the GIL while it holds the lock of this object.
class WordEncoder {
 public:
  // Added tokens are split off before a text is split into words: those of `first`, then, in the remainder, those of `second`.
  // A text that contains one of `hard` cannot be split.
  WordEncoder(std::vector<std::string> first, std::vector<std::string> second, std::vector<std::string> hard, std::size_t most_bytes)
      : first_(std::move(first)), second_(std::move(second)), hard_(std::move(hard)), table_(most_bytes) {}

  bool knows(std::uint32_t page) const {
    const std::shared_lock lock(mutex_);
    return classes_.knows(page);
  }

  void classify(std::uint32_t page, const Class* classes) {
    const std::unique_lock lock(mutex_);
    classes_.set(page, classes);
  }

  bool is_hard(std::string_view text) const { return !hard_.find(text, 0).empty(); }

  std::size_t words() const {
    const std::shared_lock lock(mutex_);
    return table_.words();
  }

  // The texts must outlive the draft, and the classes of their characters must be known. O(bytes).
  Draft draft(std::span<const std::string_view> texts) const {
    const std::shared_lock lock(mutex_);
    Draft draft;
    std::size_t bytes = 0;
    for (const std::string_view text : texts) bytes += text.size();
    draft.ids.reserve(bytes / 3);
    Seen seen;
    for (const std::string_view text : texts) {
      split(first_, text, [&](std::string_view piece, bool is_added) {
        if (is_added) return look_up(std::span(&piece, 1), piece.data() + piece.size(), draft, seen);
        split(second_, piece, [&](std::string_view part, bool is_second) {
          if (is_second) return look_up(std::span(&part, 1), part.data() + part.size(), draft, seen);
          cut(part, draft, seen);
        });
      });
      draft.ends.push_back({draft.ids.size(), draft.holes.size()});
    }
    return draft;
  }

  // Caches the tokens of the new words; word i has ids[offsets[i]] to ids[offsets[i + 1]].
  void learn(std::span<const std::string_view> words, std::span<const std::uint32_t> ids, std::span<const std::size_t> offsets) {
    const std::unique_lock lock(mutex_);
    for (std::size_t i = 0; i < words.size(); ++i) {
      if (words[i].size() <= kLongestBytes) table_.insert(words[i], ids.subspan(offsets[i], offsets[i + 1] - offsets[i]));
    }
  }

 private:
  static constexpr std::size_t kLongestBytes = 256;  // longer ones rarely recur
  static constexpr std::size_t kTogether = 32;       // words whose table slots are prefetched together
  using Seen = std::unordered_map<std::string_view, std::uint32_t>;

  void cut(std::string_view part, Draft& draft, Seen& seen) const {
    std::array<std::string_view, kTogether> words;
    const char* at = part.data();
    const char* const end = at + part.size();
    while (at < end) {
      std::size_t count = 0;
      while (at < end && count < kTogether) {
        const char* const behind = word_end(classes_, at, end);
        words[count++] = {at, static_cast<std::size_t>(behind - at)};
        at = behind;
      }
      look_up(std::span(words.data(), count), end, draft, seen);
    }
  }

  void look_up(std::span<const std::string_view> words, const char* end, Draft& draft, Seen& seen) const {
    std::array<Key, kTogether> keys;
    for (std::size_t i = 0; i < words.size(); ++i) {
      keys[i] = key_of(words[i], end);
      table_.prefetch(keys[i]);
    }
    for (std::size_t i = 0; i < words.size(); ++i) {
      if (table_.find(keys[i], words[i], draft.ids)) [[likely]] continue;
      const auto [known, is_new] = seen.try_emplace(words[i], static_cast<std::uint32_t>(draft.new_words.size()));
      if (is_new) draft.new_words.push_back(words[i]);
      draft.holes.push_back({draft.ids.size(), known->second});
    }
  }

  Patterns first_, second_, hard_;
  mutable std::shared_mutex mutex_;
  Classes classes_;
  WordTable table_;
};

}  // namespace infinigram::words
