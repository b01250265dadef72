// Files that shrink while they are mapped: the kernel answers a read beyond their end with SIGBUS, which ends the process.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace infinigram {

// From now on, such a read returns zeros instead, and its file is recorded. Whatever was computed from it is wrong: the caller must compare
// `shrinks` before and after, and discard it. Other faults are left to the previous handler.
void catch_shrinking();
// How many reads beyond the end of a mapped file were caught.
std::uint64_t shrinks();
// The files, still mapped, for which one was caught.
std::vector<std::string> shrunk_files();

// Called by the owner of a mapping of a file, before its first use and before it is unmapped.
void add_mapping(const void* begin, std::size_t bytes, const std::string& path);
void remove_mapping(const void* begin);

}  // namespace infinigram
