#include "bindings/places.hpp"

namespace infinigram {

void bind_engine_u16(py::module_& module) { bind_engine<std::uint16_t>(module, "EngineU16"); }

}  // namespace infinigram
