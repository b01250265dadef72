// The text of a shard while its table is built: a mapped file.
#pragma once

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstring>
#include <memory>
#include <mutex>
#include <string>

#include "errors.hpp"
#include "build/fingerprints.hpp"
#include "tokens.hpp"

namespace infinigram::build {

// An open file, closed at the end of its scope; raises BadIndex if it cannot be opened.
class File {
 public:
  File(std::string path, int flags) : path_(std::move(path)), descriptor_(open(path_.c_str(), flags | O_CLOEXEC, 0644)) {
    if (descriptor_ < 0) fail("open");
  }
  File(const File&) = delete;
  File& operator=(const File&) = delete;
  ~File() { close(descriptor_); }

  std::uint64_t bytes() const {
    struct stat status;
    if (fstat(descriptor_, &status) != 0) fail("read");
    if (!S_ISREG(status.st_mode)) throw BadIndex(path_ + " is not a regular file; remove it");
    return static_cast<std::uint64_t>(status.st_size);
  }

  void read_at(void* to, std::uint64_t bytes, std::uint64_t offset) const {
    for (auto* at = static_cast<char*>(to); bytes > 0;) {
      const ssize_t got = pread(descriptor_, at, bytes, static_cast<off_t>(offset));
      if (got < 0 && errno == EINTR) continue;
      if (got < 0) fail("read");
      if (got == 0) throw BadIndex(path_ + " ends too early; rebuild it");
      at += got, offset += static_cast<std::uint64_t>(got), bytes -= static_cast<std::uint64_t>(got);
    }
  }

  void write_at(const void* from, std::uint64_t bytes, std::uint64_t offset) const {
    for (const auto* at = static_cast<const char*>(from); bytes > 0;) {
      const ssize_t put = pwrite(descriptor_, at, bytes, static_cast<off_t>(offset));
      if (put < 0 && errno == EINTR) continue;
      if (put < 0) fail("write");
      at += put, offset += static_cast<std::uint64_t>(put), bytes -= static_cast<std::uint64_t>(put);
    }
  }

  // Extends the file to this size with zeros and allocates the disk space.
  void allocate(std::uint64_t bytes) const {
    if (bytes > 0 && (errno = posix_fallocate(descriptor_, 0, static_cast<off_t>(bytes))) != 0) fail("write");
  }

  int descriptor() const { return descriptor_; }
  const std::string& path() const { return path_; }

 private:
  [[noreturn]] void fail(const char* what) const {
    const bool full = errno == ENOSPC || errno == EDQUOT || errno == EFBIG;
    throw BadIndex("cannot " + std::string(what) + " " + path_ + ": " + std::strerror(errno) +
                   (full ? "; free some space and repeat the call to resume, or build in another folder" : ""));
  }

  std::string path_;
  int descriptor_;
};

// The tokens of one shard as bytes, mapped; suffixes start at multiples of the token width and run to the end.
class Text {
 public:
  Text(const std::string& path, int width) : width_(static_cast<std::uint64_t>(width)) {
    const File file(path, O_RDONLY);
    bytes_ = file.bytes();
    if (bytes_ % width_ != 0) throw BadIndex(path + " is truncated: its size is not a multiple of the token width");
    if (bytes_ == 0) return;
    void* at = mmap(nullptr, bytes_, PROT_READ, MAP_PRIVATE, file.descriptor(), 0);
    if (at == MAP_FAILED) throw BadIndex("cannot map " + path + ": " + std::strerror(errno));
    data_ = static_cast<const Byte*>(at);
  }
  Text(const Text&) = delete;
  Text& operator=(const Text&) = delete;
  ~Text() {
    if (data_ != nullptr) munmap(const_cast<Byte*>(data_), bytes_);
  }

  const Byte* data() const { return data_; }
  std::uint64_t width() const { return width_; }
  std::uint64_t bytes() const { return bytes_; }
  std::uint64_t tokens() const { return bytes_ / width_; }

  // Releases the mapped pages of these tokens, so that a pass over a large text does not count as our memory.
  void release(std::uint64_t begin, std::uint64_t end) const {
    constexpr std::uint64_t page = 4096;
    const std::uint64_t from = (begin * width_ + page - 1) / page * page;
    const std::uint64_t to = end * width_ / page * page;
    if (from < to) madvise(const_cast<Byte*>(data_) + from, to - from, MADV_DONTNEED);
  }

  void fetch(std::uint64_t position) const { __builtin_prefetch(data_ + position * width_); }

  std::uint64_t key(std::uint64_t position) const {
    const std::uint64_t at = position * width_;
    return suffix_key(data_ + at, bytes_ - at);
  }

  // Built on first use; thread-safe.
  const Fingerprints& fingerprints() const {
    std::call_once(prepared_, [this] { fingerprints_ = std::make_unique<Fingerprints>(data_, bytes_, width_); });
    return *fingerprints_;
  }

 private:
  std::uint64_t width_;
  std::uint64_t bytes_ = 0;
  const Byte* data_ = nullptr;
  mutable std::once_flag prepared_;
  mutable std::unique_ptr<Fingerprints> fingerprints_;
};

}  // namespace infinigram::build
