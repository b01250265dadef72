// A sorted part of a text in a file: 4-byte positions relative to the part's start, in the order of their suffixes.
#pragma once

#include <fcntl.h>

#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

#include "build/lms.hpp"
#include "build/text.hpp"
#include "tokens.hpp"

namespace infinigram::build {

// Reads a file sequentially through a buffer and drops what it has read from the page cache.
class FileReader {
 public:
  explicit FileReader(const File& file) : file_(file), left_(file.bytes()) {}

  // The next `Value`; raises BadIndex at the end of the file.
  template <typename Value>
  Value next() {
    if (filled_ - at_ < sizeof(Value)) refill(sizeof(Value));
    Value value;
    std::memcpy(&value, buffer_.data() + at_, sizeof(Value));
    at_ += sizeof(Value);
    return value;
  }

  bool ended() const { return at_ == filled_ && left_ == 0; }

 private:
  static constexpr std::uint64_t kBufferBytes = std::uint64_t{1} << 18;

  void refill(std::uint64_t needed) {
    if (buffer_.empty()) buffer_.resize(kBufferBytes);
    const std::uint64_t rest = filled_ - at_;
    std::copy_n(buffer_.data() + at_, rest, buffer_.data());
    const std::uint64_t got = std::min(kBufferBytes - rest, left_);
    if (rest + got < needed) throw BadIndex(file_.path() + " ends too early; delete it and rebuild");
    file_.read_at(buffer_.data() + rest, got, offset_);
    offset_ += got;
    left_ -= got;
    posix_fadvise(file_.descriptor(), 0, static_cast<off_t>(offset_), POSIX_FADV_DONTNEED);
    at_ = 0;
    filled_ = rest + got;
  }

  const File& file_;
  std::uint64_t left_;
  std::uint64_t offset_ = 0;
  std::vector<Byte> buffer_;
  std::uint64_t at_ = 0;
  std::uint64_t filled_ = 0;
};

class SortedFile {
 public:
  SortedFile(const std::string& path, std::uint64_t begin, std::uint64_t end)
      : file_(path, O_RDONLY), begin_(begin), tokens_(end - begin) {
    if (file_.bytes() != tokens_ * sizeof(Position)) throw BadIndex(path + " is truncated; delete it and rebuild");
  }

  std::uint64_t begin() const { return begin_; }
  std::uint64_t end() const { return begin_ + tokens_; }
  std::uint64_t tokens() const { return tokens_; }
  const File& file() const { return file_; }

  // The position that an entry holds; throws if it is outside the part.
  std::uint64_t checked(Position offset) const {
    if (offset < 0 || static_cast<std::uint64_t>(offset) >= tokens_) fail();
    return static_cast<std::uint64_t>(offset);
  }

  [[noreturn]] void fail() const { throw BadIndex(file_.path() + " is damaged; delete it and rebuild"); }

  // Number of the part's suffixes that precede the one at `target`, a position after the part or the end of the text.
  // O(log tokens) comparisons, each starting after the prefix that both bounds share with it.
  std::uint64_t suffixes_before(const Text& text, std::uint64_t target) const {
    std::uint64_t low = 0, high = tokens_, same_low = 0, same_high = 0;
    const std::uint64_t at = target * text.width();
    const std::uint64_t rest = text.bytes() - at;  // the later suffix ends first
    while (low < high) {
      const std::uint64_t middle = low + (high - low) / 2;
      Position offset;
      file_.read_at(&offset, sizeof(offset), middle * sizeof(Position));
      const Byte* here = text.data() + (begin_ + checked(offset)) * text.width();
      const std::uint64_t same = common_bytes(here, text.data() + at, std::min(same_low, same_high), rest);
      const bool before = same < rest && here[same] < text.data()[at + same];
      (before ? low : high) = before ? middle + 1 : middle;
      (before ? same_low : same_high) = same;
    }
    return low;
  }

 private:
  File file_;
  std::uint64_t begin_;
  std::uint64_t tokens_;
};

}  // namespace infinigram::build
