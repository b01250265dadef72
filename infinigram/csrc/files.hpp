// A file of an index, mapped or read into memory, and its size, which bounds every access.
#pragma once

#include <cstddef>
#include <string>

#include "tokens.hpp"

namespace infinigram {

enum class Load { kMap, kRam };

// Read-only bytes of one file. With kRam they are copied to anonymous memory in huge pages, so later changes of the file have no effect.
class FileBytes {
 public:
  FileBytes() = default;
  // Throws BadIndex if the file is missing, not a regular file or not readable.
  FileBytes(const std::string& path, Load load);
  FileBytes(FileBytes&& other) noexcept;
  FileBytes& operator=(FileBytes&& other) noexcept;
  FileBytes(const FileBytes&) = delete;
  FileBytes& operator=(const FileBytes&) = delete;
  ~FileBytes();

  const Byte* data() const { return data_; }
  std::size_t size() const { return size_; }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
  const Byte* data_ = nullptr;
  std::size_t size_ = 0;
  std::size_t mapped_bytes_ = 0;
};

}  // namespace infinigram
