// What happens to a mapped file that the code working on it cannot be told about.
//
// A file that is cut short while it is mapped. Reading a page that the file no longer has raises SIGBUS,
// wherever that happens to be: in a kernel of LibTorch, mostly. Jumping out of there would leave its locks
// and threads in pieces. So the handler puts a page of zeros in the hole, notes that the mapping is
// poisoned, and lets the read go on.
//
// A write to a mapping that several models share. It is mapped for reading only, so the write raises
// SIGSEGV. The handler first notes that the mapping was written to, then makes it writable and lets the
// write go on, into pages of this process alone. The order matters: nobody can read a byte that was
// written and then find the note missing.
//
// Whoever is about to send an answer computed from a mapping looks at both notes first.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "server/base/status.h"

namespace hearth {

// Guards one mapping from construction to destruction. The handlers are installed with the first guard.
// A SIGBUS outside every guarded range is fatal, as it would be without us; a SIGSEGV that is none of
// ours goes to the handler that was there before. Thread-safe.
class MappingGuard {
 public:
  MappingGuard() = default;  // guards nothing
  ~MappingGuard();
  MappingGuard(const MappingGuard&) = delete;
  MappingGuard& operator=(const MappingGuard&) = delete;

  // kNoted: the range is mapped for reading only, and the first write is noted. kFree: it is writable. kShared: it is, and
  // others can make as many holes in it as it has pages; with the first that is met, all of it becomes zeros.
  enum class Writes : std::uint8_t { kNoted, kFree, kShared };

  // RESOURCE_EXHAUSTED when kMaxGuards mappings are guarded already.
  // Holes are filled for this process alone.
  // REQUIRES: `begin` is page-aligned; a mapping whose writes are noted is a private one; called once.
  absl::Status Protect(void* begin, std::size_t size, Writes writes);

  // A read found no page behind it: zeros were seen instead of the file's bytes. Never reset.
  bool poisoned() const;
  // Somebody has written to it, or is about to. Never reset, and never set where writes are free.
  bool written() const;

  static constexpr std::size_t kMaxGuards = 16384;

 private:
  std::size_t slot_ = kMaxGuards;
};

}  // namespace hearth
