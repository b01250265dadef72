#include "shrinking.hpp"

#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <mutex>

namespace infinigram {

namespace {

// A mapped file. The signal handler reads only the atomics: it may interrupt any thread at any moment.
struct Mapping {
  std::atomic<std::uintptr_t> begin{0};  // 0: a free slot
  std::atomic<std::size_t> bytes{0};
  std::atomic<bool> shrunk{false};
  std::string path;
};

constexpr std::size_t kMost = 1 << 15;  // further files are not protected
std::mutex changing;
std::array<Mapping, kMost> mappings;
std::atomic<std::size_t> used{0};  // slots from here on were never taken
std::atomic<std::uint64_t> caught{0};
std::atomic<std::uintptr_t> page{0};
struct sigaction before;

void handle(int signal, siginfo_t* info, void* context) {
  const auto address = reinterpret_cast<std::uintptr_t>(info->si_addr);
  const std::size_t slots = used.load();
  for (std::size_t i = 0; i < slots; ++i) {
    const std::uintptr_t begin = mappings[i].begin.load();
    const std::uintptr_t end = begin + mappings[i].bytes.load();
    if (begin == 0 || address < begin || address >= end) continue;
    // everything behind a page beyond the end is beyond the end too: one mapping of zeros replaces it all
    const std::uintptr_t from = address & ~(page.load() - 1);
    void* at = ::mmap(reinterpret_cast<void*>(from), end - from, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1, 0);
    if (at == MAP_FAILED) break;
    mappings[i].shrunk.store(true);
    ++caught;
    return;
  }
  if ((before.sa_flags & SA_SIGINFO) != 0 && before.sa_sigaction != nullptr) {
    before.sa_sigaction(signal, info, context);
  } else {
    ::sigaction(signal, &before, nullptr);  // the read is repeated and faults again
  }
}

}  // namespace

void catch_shrinking() {
  const std::lock_guard lock(changing);
  if (page.load() != 0) return;
  page.store(static_cast<std::uintptr_t>(::sysconf(_SC_PAGESIZE)));
  struct sigaction action {};
  action.sa_sigaction = handle;
  action.sa_flags = SA_SIGINFO | SA_NODEFER;
  ::sigaction(SIGBUS, &action, &before);
}

std::uint64_t shrinks() { return caught.load(); }

std::vector<std::string> shrunk_files() {
  const std::lock_guard lock(changing);
  std::vector<std::string> paths;
  for (std::size_t i = 0; i < used.load(); ++i) {
    if (mappings[i].begin.load() != 0 && mappings[i].shrunk.load()) paths.push_back(mappings[i].path);
  }
  return paths;
}

void add_mapping(const void* begin, std::size_t bytes, const std::string& path) {
  const std::lock_guard lock(changing);
  std::size_t slot = 0;
  while (slot < used.load() && mappings[slot].begin.load() != 0) ++slot;
  if (slot == kMost) return;
  Mapping& mapping = mappings[slot];
  mapping.path = path;
  mapping.shrunk.store(false);
  mapping.bytes.store(bytes);
  mapping.begin.store(reinterpret_cast<std::uintptr_t>(begin));
  if (slot == used.load()) used.store(slot + 1);
}

void remove_mapping(const void* begin) {
  const std::lock_guard lock(changing);
  for (std::size_t i = 0; i < used.load(); ++i) {
    if (mappings[i].begin.load() == reinterpret_cast<std::uintptr_t>(begin)) {
      mappings[i].begin.store(0);
      return;
    }
  }
}

}  // namespace infinigram
