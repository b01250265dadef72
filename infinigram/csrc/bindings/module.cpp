// The module _infinigram: each bindings file is registered here.
#include <pybind11/pybind11.h>

#include "errors.hpp"

namespace py = pybind11;

namespace infinigram {
void bind_build(py::module_& module);
void bind_index(py::module_& module);
void bind_words(py::module_& module);
}  // namespace infinigram

PYBIND11_MODULE(_infinigram, module) {
  module.doc() = "The suffix-array engine of infinigram; use it through the package limbeck.infinigram.";
  py::object base = py::module_::import("limbeck.corpus.errors").attr("LimbeckError");
  py::register_exception<infinigram::BadIndex>(module, "BadIndex", base);
  py::register_exception<infinigram::BadQuery>(module, "BadQuery", base);
  infinigram::bind_build(module);
  infinigram::bind_index(module);
  infinigram::bind_words(module);
}
