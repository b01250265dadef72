#include "bindings/arguments.hpp"

namespace py = pybind11;

namespace infinigram {

IntegerBuffer::IntegerBuffer(py::handle object, const char* name) {
  if (PyObject_GetBuffer(object.ptr(), &view_, PyBUF_FORMAT | PyBUF_STRIDES) != 0) {
    PyErr_Clear();
    throw BadQuery(std::string(name) + " must be a list or a one-dimensional array of integers, not " +
                   Py_TYPE(object.ptr())->tp_name);
  }
  const char* format = view_.format == nullptr ? "B" : view_.format;
  if (*format == '<' || *format == '=' || *format == '@') ++format;
  const bool has_sign = std::strchr("bhilqn", *format) != nullptr;
  const bool has_none = std::strchr("BHILQN", *format) != nullptr;
  if (view_.ndim == 1 && view_.shape[0] == 0) return;  // empty, of any type
  if (view_.ndim != 1 || *format == 0 || format[1] != 0 || !(has_sign || has_none)) {
    const std::string given = std::to_string(view_.ndim) + " dimensions of type '" + view_.format + "'";
    PyBuffer_Release(&view_);
    throw BadQuery(std::string(name) + " must be a one-dimensional array of integers, not one of " + given);
  }
  switch (view_.itemsize) {
    case 1: kind_ = has_sign ? 'b' : 'B'; break;
    case 2: kind_ = has_sign ? 'h' : 'H'; break;
    case 4: kind_ = has_sign ? 'i' : 'I'; break;
    default: kind_ = has_sign ? 'q' : 'Q'; break;
  }
}

void bad_token(const std::string& value, int bits) {
  throw BadQuery("token id " + value + " is out of range: u" + std::to_string(bits) + " tokens are 0 to " +
                 std::to_string((std::uint64_t{1} << bits) - 1));
}

void not_a_token(py::handle item) {
  throw BadQuery("token ids must be integers, not " + std::string(Py_TYPE(item.ptr())->tp_name));
}

py::object with_buffer(py::handle object) {
  if (PyObject_CheckBuffer(object.ptr())) return py::reinterpret_borrow<py::object>(object);
  if (PyUnicode_Check(object.ptr())) {
    throw BadQuery("expected token ids, not text; encode it first, or open the index with its tokenizer");
  }
  if (py::hasattr(object, "__array__")) return object.attr("__array__")();
  if (!PySequence_Check(object.ptr())) {
    throw BadQuery("token ids must be a list or a one-dimensional array of integers, not " + std::string(Py_TYPE(object.ptr())->tp_name));
  }
  throw BadQuery("token ids must be a list, a tuple or an array, not " + std::string(Py_TYPE(object.ptr())->tp_name));
}

std::vector<std::int64_t> read_offsets(py::handle object, std::size_t total) {
  std::vector<std::int64_t> offsets;
  const auto wrong = [&](std::size_t at) {
    throw BadQuery("batch offsets must ascend from 0 to the number of ids, " + std::to_string(total) + "; entry " +
                   std::to_string(at) + " does not");
  };
  const auto add = [&](std::size_t at, std::uint64_t value) {
    if (value > total || (at == 0 && value != 0) || (at != 0 && static_cast<std::int64_t>(value) < offsets.back())) wrong(at);
    offsets.push_back(static_cast<std::int64_t>(value));
  };
  if (PyList_CheckExact(object.ptr()) || PyTuple_CheckExact(object.ptr())) {
    std::size_t at = 0;
    for (const py::handle item : object) add(at++, integer_of(item, 63));
  } else {
    const py::object holder = with_buffer(object);
    const IntegerBuffer buffer(holder, "offsets");
    buffer.for_each([&](std::size_t at, auto value) { add(at, static_cast<std::uint64_t>(value)); });
  }
  if (offsets.empty() || offsets.back() != static_cast<std::int64_t>(total)) wrong(offsets.empty() ? 0 : offsets.size() - 1);
  return offsets;
}

}  // namespace infinigram
