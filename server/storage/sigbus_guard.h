// Surviving a file that is cut short while it is mapped.
//
// Reading a page that the file no longer has raises SIGBUS, wherever that happens to be: in a kernel of
// LibTorch, mostly. Jumping out of there would leave its locks and threads in pieces. So the handler
// puts a page of zeros in the hole, notes that the mapping is poisoned, and lets the read go on;
// whoever is about to send an answer computed from that mapping looks at the note first.
#pragma once

#include <atomic>
#include <cstddef>

#include "server/base/status.h"

namespace hearth {

// Guards one mapping from construction to destruction. The handler is installed with the first guard;
// a SIGBUS outside every guarded range is fatal, as it would be without us. Thread-safe.
class SigbusGuard {
 public:
  SigbusGuard() = default;  // guards nothing
  ~SigbusGuard();
  SigbusGuard(const SigbusGuard&) = delete;
  SigbusGuard& operator=(const SigbusGuard&) = delete;

  // RESOURCE_EXHAUSTED when kMaxGuards mappings are guarded already.
  // REQUIRES: `begin` is page-aligned; called once.
  absl::Status Protect(void* begin, std::size_t size);

  // A read found no page behind it: zeros were seen instead of the file's bytes. Never reset.
  bool poisoned() const;

  static constexpr std::size_t kMaxGuards = 16384;

 private:
  std::size_t slot_ = kMaxGuards;
};

}  // namespace hearth
