// Splits text into words like GPT-2 (Radford et al. 2019):
//   's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace infinigram::words {

enum class Class : std::uint8_t { kUnknown, kLetter, kNumber, kSpace, kOther };

// The classes of code points, page by page; unknown until set.
class Classes {
 public:
  static constexpr std::uint32_t kPage = 256;
  static constexpr std::uint32_t kPages = 0x110000 / kPage;

  Classes() : classes_(kPages * kPage, Class::kUnknown) {}
  bool knows(std::uint32_t page) const { return classes_[page * kPage] != Class::kUnknown; }
  void set(std::uint32_t page, const Class* classes) { std::copy_n(classes, kPage, classes_.begin() + page * kPage); }

  Class of_ascii(char byte) const { return classes_[static_cast<unsigned char>(byte)]; }

  // The class of the character at `at`, and its length in bytes.
  Class of(const char* at, std::size_t& bytes) const {
    const auto byte = [at](int i) { return static_cast<std::uint32_t>(static_cast<unsigned char>(at[i])); };
    const std::uint32_t first = byte(0);
    if (first < 0x80) [[likely]] {
      bytes = 1;
      return classes_[first];
    }
    if (first < 0xe0) {
      bytes = 2;
      return classes_[(first & 0x1f) << 6 | (byte(1) & 0x3f)];
    }
    if (first < 0xf0) {
      bytes = 3;
      return classes_[(first & 0x0f) << 12 | (byte(1) & 0x3f) << 6 | (byte(2) & 0x3f)];
    }
    bytes = 4;
    return classes_[(first & 0x07) << 18 | (byte(1) & 0x3f) << 12 | (byte(2) & 0x3f) << 6 | (byte(3) & 0x3f)];
  }

 private:
  std::vector<Class> classes_;
};

// End of the word that begins at `at`, before `end`, in UTF-8 text whose character classes are all known.
inline const char* word_end(const Classes& classes, const char* at, const char* end) {
  std::size_t bytes;
  Class first = classes.of(at, bytes);
  if (*at == '\'' && end - at > 1) {
    const char next = at[1];
    if (next == 's' || next == 't' || next == 'm' || next == 'd') return at + 2;
    if (end - at > 2) {
      const char after = at[2];
      if ((next == 'r' && after == 'e') || (next == 'v' && after == 'e') || (next == 'l' && after == 'l')) return at + 3;
    }
  }
  if (first == Class::kSpace) {
    if (*at == ' ' && end - at > 1 && (first = classes.of(at + 1, bytes)) != Class::kSpace) {
      ++at;
    } else {
      const char* last = at;
      std::size_t wide;
      const char* behind = at;
      for (; behind < end && classes.of(behind, wide) == Class::kSpace; behind += wide) last = behind;
      // whitespace before another word leaves its last character to that word, if it has more than one
      return behind == end || last == at ? behind : last;
    }
  }
  for (at += bytes; at < end && classes.of(at, bytes) == first; at += bytes) {
  }
  return at;
}

// Strings to find in a text: the longest at each position, without overlaps (as tokenizers find added tokens).
class Patterns {
 public:
  explicit Patterns(std::vector<std::string> patterns) : pairs_(1 << 16), by_byte_(256) {
    std::sort(patterns.begin(), patterns.end(), [](const auto& a, const auto& b) { return a.size() > b.size(); });
    for (std::string& pattern : patterns) {
      if (pattern.empty()) continue;
      const std::size_t first = byte(pattern, 0);
      any_ = begins_[first] = true;
      for (std::size_t next = 0; next < 256; ++next) {
        if (pattern.size() == 1 || next == byte(pattern, 1)) pairs_[first << 8 | next] = true;
      }
      by_byte_[first].push_back(std::move(pattern));
    }
  }

  // The first match in `text` from `from` on, or an empty view.
  std::string_view find(std::string_view text, std::size_t from) const {
    if (!any_) return {};
    for (std::size_t at = from; at < text.size(); ++at) {
      const std::size_t first = byte(text, at);
      if (!begins_[first]) [[likely]] continue;
      if (at + 1 < text.size() && !pairs_[first << 8 | byte(text, at + 1)]) continue;
      for (const std::string& pattern : by_byte_[first]) {
        if (text.compare(at, pattern.size(), pattern) == 0) return text.substr(at, pattern.size());
      }
    }
    return {};
  }

 private:
  static std::size_t byte(std::string_view text, std::size_t at) { return static_cast<unsigned char>(text[at]); }

  bool any_ = false;
  bool begins_[256] = {};
  std::vector<bool> pairs_;  // of the first two bytes
  std::vector<std::vector<std::string>> by_byte_;  // longest first
};

// Calls visit(piece, is_pattern) for a whole text in order, split at the patterns found in it.
template <typename Visit>
void split(const Patterns& patterns, std::string_view text, Visit visit) {
  std::size_t from = 0;
  while (from < text.size()) {
    const std::string_view found = patterns.find(text, from);
    const std::size_t begin = found.empty() ? text.size() : static_cast<std::size_t>(found.data() - text.data());
    if (begin != from) visit(text.substr(from, begin - from), false);
    if (!found.empty()) visit(found, true);
    from = begin + found.size();
  }
}

}  // namespace infinigram::words
