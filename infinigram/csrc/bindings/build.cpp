// Construction, as exposed to Python: sort parts, merge them into a table, check a table.
#include <pybind11/functional.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <chrono>
#include <future>
#include <thread>

#include "build/check.hpp"
#include "build/gaps.hpp"
#include "build/merge.hpp"
#include "build/part.hpp"
#include "build/sorted_file.hpp"
#include "build/stitch.hpp"
#include "build/text.hpp"

namespace py = pybind11;

namespace infinigram {
namespace {

using build::File;
using build::Part;
using build::Position;
using build::Text;
using Report = std::function<void(std::uint64_t)>;  // tokens done so far

// Worker threads, monitored from the calling thread, the only one that calls Python.
class Crew {
 public:
  std::atomic<std::uint64_t> done{0};
  std::atomic<bool> stopped{false};

  template <typename Work>
  void start(Work work) {
    workers_.push_back(std::async(std::launch::async, std::move(work)));
  }

  // Waits for all threads; rethrows the first exception of a thread, of `report` or of an interrupt.
  void finish(const Report& report) {
    std::exception_ptr failure;
    std::uint64_t reported = 0;
    for (auto& worker : workers_) {
      while (failure == nullptr && worker.wait_for(std::chrono::milliseconds(50)) != std::future_status::ready) {
        try {
          const py::gil_scoped_acquire python;
          if (PyErr_CheckSignals() != 0) throw py::error_already_set();
          if (done != reported) report(reported = done);
        } catch (...) {
          failure = std::current_exception();
          stopped = true;
        }
      }
      try {
        worker.get();
      } catch (...) {
        if (failure == nullptr) failure = std::current_exception();
        stopped = true;
      }
    }
    if (failure != nullptr) std::rethrow_exception(failure);
    const py::gil_scoped_acquire python;
    report(done);
  }

  // The callback that a sorter invokes between its passes.
  build::Tick tick(std::uint64_t tokens) {
    return [this, tokens](double share) {
      if (stopped) throw BadIndex("stopped");
      done += static_cast<std::uint64_t>(share * static_cast<double>(tokens));
    };
  }

 private:
  std::vector<std::future<void>> workers_;
};

build::HugeArray<Position> sorted(const Text& text, std::uint64_t begin, std::uint64_t end, const build::Tick& tick) {
  switch (text.width()) {
    case 1:
      return build::sorted_part<std::uint8_t>(text, begin, end, tick);
    case 2:
      return build::sorted_part<std::uint16_t>(text, begin, end, tick);
    default:
      return build::sorted_part<std::uint32_t>(text, begin, end, tick);
  }
}

void check_width(int width) {
  if (width != 1 && width != 2 && width != 4) throw BadIndex("the token width must be 1, 2 or 4 bytes");
}

void check_bounds(const Text& text, const std::vector<std::uint64_t>& bounds) {
  bool right = bounds.size() >= 2 && bounds.front() == 0 && bounds.back() == text.tokens();
  for (std::size_t at = 1; right && at < bounds.size(); ++at) {
    right = bounds[at - 1] <= bounds[at] && bounds[at] - bounds[at - 1] <= build::kMaxPartTokens;
  }
  if (!right) throw BadIndex("the parts do not cover the text, or one is larger than 2^31 - 1024 tokens");
}

void sort_part(const std::string& text_path, int width, std::uint64_t begin, std::uint64_t end,
               const std::string& part_path, const Report& report) {
  check_width(width);
  const py::gil_scoped_release free_python;
  const Text text(text_path, width);
  check_bounds(text, {0, begin, end, text.tokens()});
  Crew crew;
  crew.start([&] {
    const auto table = sorted(text, begin, end, crew.tick(end - begin));
    crew.done = end - begin;
    const File file(part_path, O_WRONLY | O_CREAT | O_TRUNC);
    file.write_at(table.data(), table.size() * sizeof(Position), 0);
  });
  crew.finish(report);
}

template <typename Token>
void count_gaps(const Text& text, const build::SortedFile& part, const build::Greater* behind, build::Greater* greater,
                const File& gaps_file, std::uint64_t threads, const Report& report) {
  const build::Continuations<Token> order(text, part, greater);
  Crew crew;
  crew.done = part.tokens();
  if (behind == nullptr) return crew.finish(report);  // nothing follows the last part
  build::Gaps gaps(part.tokens());
  build::GapCounter<Token> counter(text, part, order, *behind, greater, gaps, threads);
  std::vector<build::Gaps::Overflow> overflow(threads);
  for (auto& own : overflow) crew.start([&] { counter.run(own, crew.done, crew.stopped); });
  crew.finish(report);
  for (std::uint64_t thread = 1; thread < threads; ++thread) {
    for (const auto& [rank, times] : overflow[thread]) overflow[0][rank] += times;
  }
  gaps.write(gaps_file, overflow[0]);
}

// `behind_path` is the `greater_path` written for the part to the right; empty for the last part.
void count_gaps_of(const std::string& text_path, int width, std::uint64_t begin, std::uint64_t end,
                   const std::string& part_path, const std::string& behind_path, const std::string& greater_path,
                   const std::string& gaps_path, std::uint64_t threads, const Report& report) {
  check_width(width);
  const py::gil_scoped_release free_python;
  const Text text(text_path, width);
  check_bounds(text, {0, begin, end, text.tokens()});
  if (begin == end) throw BadIndex("a part to merge is empty; delete the parts and rebuild");
  const build::SortedFile part(part_path, begin, end);
  const bool is_last = end == text.tokens();
  const auto behind = is_last ? nullptr : std::make_unique<build::Greater>(behind_path, end, text.tokens(), false);
  build::Greater greater(greater_path, begin, text.tokens(), true);
  const File gaps(gaps_path, O_WRONLY | O_CREAT | O_TRUNC);
  const auto count = width == 1   ? count_gaps<std::uint8_t>
                     : width == 2 ? count_gaps<std::uint16_t>
                                  : count_gaps<std::uint32_t>;
  count(text, part, behind.get(), &greater, gaps, std::max<std::uint64_t>(threads, 1), report);
}

// `gap_paths`: one per part; the last part's file is empty.
void merge_parts(const std::string& text_path, int width, const std::vector<std::uint64_t>& bounds,
                 const std::vector<std::string>& part_paths, const std::vector<std::string>& gap_paths,
                 const std::string& table_path, const Report& report) {
  check_width(width);
  const py::gil_scoped_release free_python;
  const Text text(text_path, width);
  check_bounds(text, bounds);
  std::vector<std::unique_ptr<build::SortedFile>> parts;
  std::vector<std::unique_ptr<File>> gaps;
  for (std::size_t each = 0; each + 1 < bounds.size(); ++each) {
    parts.push_back(std::make_unique<build::SortedFile>(part_paths.at(each), bounds[each], bounds[each + 1]));
    if (each + 2 < bounds.size()) gaps.push_back(std::make_unique<File>(gap_paths.at(each), O_RDONLY));
  }
  const File table(table_path, O_WRONLY | O_CREAT | O_TRUNC);
  Crew crew;
  crew.start([&] { build::stitch(text, parts, gaps, table, crew.done, crew.stopped); });
  crew.finish(report);
}

void build_table(const std::string& text_path, int width, const std::vector<std::uint64_t>& bounds,
                 const std::string& table_path, const Report& report) {
  check_width(width);
  const py::gil_scoped_release free_python;
  const Text text(text_path, width);
  check_bounds(text, bounds);
  std::vector<Part> parts(bounds.size() - 1);
  {
    Crew crew;
    for (std::size_t each = 0; each < parts.size(); ++each) {
      parts[each].begin = bounds[each];
      crew.start([&, each] {
        const std::uint64_t tokens = bounds[each + 1] - bounds[each];
        parts[each].offsets = sorted(text, bounds[each], bounds[each + 1], crew.tick(tokens));
      });
    }
    crew.finish(report);
  }
  const File table(table_path, O_WRONLY | O_CREAT | O_TRUNC);
  // More pieces than threads, to balance the load.
  const auto cuts = build::pieces_of(text, parts, parts.size() == 1 ? 1 : 4 * parts.size());
  std::atomic<std::size_t> next{0};
  Crew crew;
  crew.done = text.tokens();
  for (std::size_t thread = 0; thread < parts.size(); ++thread) {
    crew.start([&] {
      for (std::size_t piece; (piece = next++) + 1 < cuts.size();) {
        build::merge_piece(text, parts, cuts[piece], cuts[piece + 1], table, crew.done, crew.stopped);
      }
    });
  }
  crew.finish(report);
}

template <typename Token>
void check_all(const Text& text, const build::Table& table, const Report& report) {
  if (table.entries() < ~std::uint32_t{0}) {
    build::check_all<Token, std::uint32_t>(text, table, report);
  } else {
    build::check_all<Token, std::uint64_t>(text, table, report);
  }
}

// `samples` 0: check everything.
void check_table(const std::string& text_path, int width, const std::string& table_path, std::uint64_t samples,
                 std::uint64_t seed, const Report& report) {
  check_width(width);
  const py::gil_scoped_release free_python;
  const Text text(text_path, width);
  const build::Table table(table_path, text);
  Crew crew;
  crew.start([&] {
    const auto tell = [&](std::uint64_t done) {
      crew.done = done;
      if (crew.stopped) throw BadIndex("stopped");
    };
    if (samples > 0) return build::check_sample(text, table, samples, seed, tell);
    if (width == 1) return check_all<std::uint8_t>(text, table, tell);
    if (width == 2) return check_all<std::uint16_t>(text, table, tell);
    check_all<std::uint32_t>(text, table, tell);
  });
  crew.finish(report);
}

py::bytes sampled_keys(const std::string& text_path, int width, const std::string& table_path, std::uint64_t stride) {
  check_width(width);
  const Text text(text_path, width);
  const build::Table table(table_path, text);
  std::vector<std::uint64_t> keys;
  {
    const py::gil_scoped_release free_python;
    keys = build::sampled_keys(text, table, std::max<std::uint64_t>(stride, 1));
  }
  return py::bytes(reinterpret_cast<const char*>(keys.data()), keys.size() * sizeof(std::uint64_t));
}

}  // namespace

void bind_build(py::module_& module) {
  module.def("sort_part", &sort_part, py::arg("text_path"), py::arg("width"), py::arg("begin"), py::arg("end"),
             py::arg("part_path"), py::arg("report"));
  module.def("count_gaps", &count_gaps_of, py::arg("text_path"), py::arg("width"), py::arg("begin"), py::arg("end"),
             py::arg("part_path"), py::arg("behind_path"), py::arg("greater_path"), py::arg("gaps_path"),
             py::arg("threads"), py::arg("report"));
  module.def("merge_parts", &merge_parts, py::arg("text_path"), py::arg("width"), py::arg("bounds"),
             py::arg("part_paths"), py::arg("gap_paths"), py::arg("table_path"), py::arg("report"));
  module.def("build_table", &build_table, py::arg("text_path"), py::arg("width"), py::arg("bounds"),
             py::arg("table_path"), py::arg("report"));
  module.def("check_table", &check_table, py::arg("text_path"), py::arg("width"), py::arg("table_path"),
             py::arg("samples"), py::arg("seed"), py::arg("report"));
  module.def("sampled_keys", &sampled_keys, py::arg("text_path"), py::arg("width"), py::arg("table_path"),
             py::arg("stride"));
}

}  // namespace infinigram
