// Large arrays in huge pages: suffix sorting accesses memory at random, and 4 KiB pages would miss the TLB on every access.
#pragma once

#include <sys/mman.h>

#include <cstddef>
#include <new>
#include <span>
#include <utility>

namespace infinigram::build {

// Zeroed memory for `size` values of a trivial type.
template <typename Value>
class HugeArray {
 public:
  HugeArray() = default;
  explicit HugeArray(std::size_t size) : size_(size) {
    if (size == 0) return;
    void* at = mmap(nullptr, bytes(), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (at == MAP_FAILED) throw std::bad_alloc();
    madvise(at, bytes(), MADV_HUGEPAGE);  // best effort: without huge pages sorting is only slower
    data_ = static_cast<Value*>(at);
  }
  HugeArray(HugeArray&& other) noexcept { *this = std::move(other); }
  HugeArray& operator=(HugeArray&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    return *this;
  }
  ~HugeArray() {
    if (data_ != nullptr) munmap(data_, bytes());
  }

  Value* data() { return data_; }
  const Value* data() const { return data_; }
  std::size_t size() const { return size_; }
  Value& operator[](std::size_t at) { return data_[at]; }
  const Value& operator[](std::size_t at) const { return data_[at]; }
  std::span<Value> span() { return {data_, size_}; }
  std::span<const Value> span() const { return {data_, size_}; }

 private:
  std::size_t bytes() const { return size_ * sizeof(Value); }

  Value* data_ = nullptr;
  std::size_t size_ = 0;
};

}  // namespace infinigram::build
