// How many programs are kept, for metrics. No torch headers: app.cc includes this.
#pragma once

#include <atomic>
#include <cstdint>

namespace hearth {

// Written by the ProgramCache alone. Thread-safe.
struct KeptPrograms {
  std::atomic<std::uint64_t> count{0};
  std::atomic<std::uint64_t> bytes{0};  // what they are charged
};

}  // namespace hearth
