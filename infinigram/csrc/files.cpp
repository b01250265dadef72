#include "files.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>
#include <vector>

#include "errors.hpp"
#include "shrinking.hpp"

namespace infinigram {

namespace {

constexpr std::size_t kHugePage = std::size_t{1} << 21;

[[noreturn]] void fail(const std::string& path, const char* what) {
  throw BadIndex("cannot " + std::string(what) + " " + path + ": " + std::strerror(errno));
}

// A file descriptor, closed on destruction.
class Descriptor {
 public:
  explicit Descriptor(const std::string& path) : value_(::open(path.c_str(), O_RDONLY | O_CLOEXEC)) {
    if (value_ < 0) fail(path, "open");
  }
  ~Descriptor() { ::close(value_); }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int value() const { return value_; }

 private:
  int value_;
};

void read_all(int descriptor, Byte* into, std::size_t bytes, const std::string& path) {
  std::size_t done = 0;
  while (done < bytes) {
    const ssize_t got = ::pread(descriptor, into + done, bytes - done, static_cast<off_t>(done));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) fail(path, "read");
    if (got == 0) throw BadIndex(path + " shrank while it was read; reopen the index when nothing writes to it");
    done += static_cast<std::size_t>(got);
  }
}

// Maps all pages that are in the page cache in one call: faulting them in one by one would cost as much as a whole count.
// Larger files fault on first access, and pages that are not cached are left to the first query that reads them.
void map_cached(void* at, std::size_t bytes) {
#ifdef MADV_POPULATE_READ
  constexpr std::size_t kMostBytes = std::size_t{2} << 30;  // about 50 ms
  const auto page = static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
  if (bytes > kMostBytes) return;
  std::vector<unsigned char> cached((bytes + page - 1) / page);
  if (::mincore(at, bytes, cached.data()) != 0) return;
  for (std::size_t begin = 0; begin < cached.size();) {
    std::size_t end = begin;
    while (end < cached.size() && (cached[end] & 1) != 0) ++end;
    if (end != begin) ::madvise(static_cast<Byte*>(at) + begin * page, (end - begin) * page, MADV_POPULATE_READ);
    begin = end + 1;
  }
#else
  static_cast<void>(at);
  static_cast<void>(bytes);
#endif
}

}  // namespace

FileBytes::FileBytes(const std::string& path, Load load) : path_(path) {
  const Descriptor file(path);
  struct stat status {};
  if (::fstat(file.value(), &status) != 0) fail(path, "read");
  if (!S_ISREG(status.st_mode)) throw BadIndex(path + " is not a regular file; an index folder holds regular files only");
  size_ = static_cast<std::size_t>(status.st_size);
  if (size_ == 0) return;
  if (load == Load::kMap) {
    void* at = ::mmap(nullptr, size_, PROT_READ, MAP_PRIVATE, file.value(), 0);
    if (at == MAP_FAILED) fail(path, "map");
    add_mapping(at, size_, path);
    ::madvise(at, size_, MADV_RANDOM);
    // the kernel hides which pages are cached for files of other users
    if (status.st_uid == ::geteuid() || ::access(path.c_str(), W_OK) == 0) map_cached(at, size_);
    data_ = static_cast<const Byte*>(at);
    mapped_bytes_ = size_;
    return;
  }
  const std::size_t rounded = (size_ + kHugePage - 1) / kHugePage * kHugePage;
  void* at = ::mmap(nullptr, rounded, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (at == MAP_FAILED) fail(path, "allocate memory for");
  data_ = static_cast<const Byte*>(at);
  mapped_bytes_ = rounded;
  ::madvise(at, rounded, MADV_HUGEPAGE);
  try {
    read_all(file.value(), static_cast<Byte*>(at), size_, path);
  } catch (...) {
    ::munmap(at, rounded);
    throw;
  }
}

FileBytes::FileBytes(FileBytes&& other) noexcept { *this = std::move(other); }

FileBytes& FileBytes::operator=(FileBytes&& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  std::swap(mapped_bytes_, other.mapped_bytes_);
  return *this;
}

FileBytes::~FileBytes() {
  if (data_ == nullptr) return;
  remove_mapping(data_);
  ::munmap(const_cast<Byte*>(data_), mapped_bytes_);
}

}  // namespace infinigram
