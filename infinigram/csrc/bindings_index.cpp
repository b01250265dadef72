#include <pybind11/pybind11.h>

namespace py = pybind11;

namespace infinigram {

void bind_index(py::module_& module) { (void)module; }

}  // namespace infinigram
