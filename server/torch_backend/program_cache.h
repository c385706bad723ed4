// Programs that outlive their models.
#pragma once

#include <cstdint>
#include <list>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <utility>

#include "server/base/mutex.h"
#include "server/torch_backend/kept_programs.h"
#include "server/torch_backend/script_archive.h"
#include "server/torch_backend/script_program.h"

namespace hearth {

// Keeps programs by their content: the SHA-256 of code, constants.pkl and the constants' bytes; and by the device that
// their constants are on. Frozen
// and traced modules with different weights can have the same code, so code alone would not do. A
// program with more than 1 MiB of constants is not kept.
//
// At most `max_bytes` by the same guess that models are charged with; the least recently used leave.
// The budget of those bytes is set aside once, when the daemon starts.
//
// Thread-safe.
class ProgramCache {
 public:
  // `kept` says how many there are; null: nobody asks.
  explicit ProgramCache(std::uint64_t max_bytes, std::shared_ptr<KeptPrograms> kept = nullptr)
      : max_bytes_(max_bytes), kept_(kept ? std::move(kept) : std::make_shared<KeptPrograms>()) {}

  struct Found {
    std::shared_ptr<ScriptProgram> program;
    std::optional<std::string> key;  // none: never kept
    bool kept = false;               // it has been bound before
  };
  // A new one where none is kept for that device, or where a run has written to the constants of the one that is.
  Found Find(const ScriptArchive& archive, const Device& device) ABSL_LOCKS_EXCLUDED(mu_);

  // After a program was bound for the first time, with what it costs.
  void Keep(const Found& found, std::uint64_t bytes) ABSL_LOCKS_EXCLUDED(mu_);

 private:
  struct Entry {
    std::string key;
    std::shared_ptr<ScriptProgram> program;
    std::uint64_t bytes = 0;
  };
  using Entries = std::list<Entry>;  // the most recently used first

  void Remove(Entries::iterator entry, Entries& leaving) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  const std::uint64_t max_bytes_;
  const std::shared_ptr<KeptPrograms> kept_;
  Mutex mu_;
  Entries entries_ ABSL_GUARDED_BY(mu_);
  std::unordered_map<std::string, Entries::iterator> by_key_ ABSL_GUARDED_BY(mu_);
};

}  // namespace hearth
