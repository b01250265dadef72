// For every suffix after a given position, whether it sorts after the suffix at that position; passed from a part to its left neighbour.
#pragma once

#include <fcntl.h>
#include <sys/mman.h>

#include <cerrno>
#include <cstdint>
#include <cstring>
#include <string>

#include "build/text.hpp"

namespace infinigram::build {

// One bit per suffix from a text position on, in a mapped file: whether it sorts after the suffix at that position.
class Greater {
 public:
  // Creates a file of zeros with its disk space allocated.
  Greater(const std::string& path, std::uint64_t begin, std::uint64_t end, bool fresh)
      : file_(path, fresh ? O_RDWR | O_CREAT | O_TRUNC : O_RDONLY), begin_(begin), bytes_((end - begin + 63) / 64 * 8) {
    if (fresh) file_.allocate(bytes_);
    if (file_.bytes() != bytes_) throw BadIndex(path + " is truncated; delete its folder and rebuild");
    if (bytes_ == 0) return;
    void* at = mmap(nullptr, bytes_, fresh ? PROT_READ | PROT_WRITE : PROT_READ, MAP_SHARED, file_.descriptor(), 0);
    if (at == MAP_FAILED) throw BadIndex("cannot map " + path + ": " + std::strerror(errno));
    words_ = static_cast<std::uint64_t*>(at);
  }
  Greater(const Greater&) = delete;
  Greater& operator=(const Greater&) = delete;
  ~Greater() {
    if (words_ != nullptr) munmap(words_, bytes_);
  }

  bool operator[](std::uint64_t position) const {
    const std::uint64_t bit = position - begin_;
    return (words_[bit / 64] >> bit % 64 & 1) != 0;
  }
  void set(std::uint64_t position) { add(position, std::uint64_t{1} << shift(position)); }
  void add(std::uint64_t position, std::uint64_t bits) { words_[(position - begin_) / 64] |= bits; }
  int shift(std::uint64_t position) const { return static_cast<int>((position - begin_) % 64); }

 private:
  File file_;
  std::uint64_t begin_;
  std::uint64_t bytes_;
  std::uint64_t* words_ = nullptr;
};

}  // namespace infinigram::build
