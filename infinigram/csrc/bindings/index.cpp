// Engines of the three token widths; each is a separate translation unit, to compile in parallel.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "pool.hpp"
#include "shrinking.hpp"

namespace py = pybind11;

namespace infinigram {

void bind_engine_u8(py::module_& module);
void bind_engine_u16(py::module_& module);
void bind_engine_u32(py::module_& module);

void bind_index(py::module_& module) {
  bind_engine_u8(module);
  bind_engine_u16(module);
  bind_engine_u32(module);
  module.def("set_threads", &set_threads, py::arg("count"));
  module.def("threads", &threads);
  module.def("catch_shrinking", &catch_shrinking);
  module.def("shrinks", &shrinks);
  module.def("shrunk_files", &shrunk_files);
}

}  // namespace infinigram
