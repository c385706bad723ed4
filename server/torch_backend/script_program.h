// From a mapped TorchScript archive to a module whose weights are the mapping.
//
// torch::jit::load copies every tensor. Here the archive's pickles go through LibTorch's public
// Unpickler with a read_record callback that hands out addresses inside the mapping, and its code
// through SourceImporter; only what cannot be mapped is copied: a record that is compressed, or not
// aligned to 64 bytes.
//
// A ScriptProgram is what is left without the weights: classes, compiled code, the graphs' constants.
// Parsing costs milliseconds and a program is kilobytes, so it can outlive the models that run it
// (program_cache.h): the next model of the same program skips parsing, and its functions keep the plans
// that the JIT made for them.
#pragma once

#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <stop_token>
#include <string>
#include <vector>

#include "server/base/mutex.h"
#include "server/base/status.h"
#include "server/model/load_report.h"
#include "server/model/signature.h"
#include "server/torch_backend/device.h"
#include "server/torch_backend/script_archive.h"
#include "server/torch_backend/torch_headers.h"
#include "server/torch_backend/written_state_memo.h"

namespace hearth {

class ScriptProgram;

struct BoundModule {
  torch::jit::Module module;
  std::vector<at::IValue> constants;  // what the program's graphs refer to
  std::shared_ptr<ScriptProgram> program;
};

// Any number of modules can be bound to it, one after the other; those that are bound run side by side.
//
// Thread-safe.
class ScriptProgram : public std::enable_shared_from_this<ScriptProgram> {
 public:
  // `keeps`: will outlive the archives it is bound with, so it copies its constants instead of
  // pointing into a mapping.
  ScriptProgram(std::int64_t format_version, bool keeps);

  // Gives the program the archive's weights, on the device; parses what was not parsed yet, and fills the parse,
  // bind and to_device phases of `report`. Tensors are ordinary ones (created outside InferenceMode), so
  // in-place writes count in their version. After an error the program may be half parsed: drop it.
  // REQUIRES: the code and constants of every archive are the same, and so is the device.
  absl::StatusOr<BoundModule> Bind(const ScriptArchive& archive, Device& device, LoadReport& report,
                                   const std::stop_token& stop = {}) ABSL_LOCKS_EXCLUDED(mu_);

  // Whether its constants are copies. Those of others lie in the mapping it was bound with first.
  bool keeps() const { return keeps_; }

  // As FindWrittenState(), which is asked once for all modules that are built alike.
  WrittenState Written(const torch::jit::Module& module, const torch::jit::Method& method) {
    return written_.Find(module, method);
  }

  // A run has written to the constants, which all modules of this program share: bind no more.
  void Spoil() { spoilt_.store(true, std::memory_order_relaxed); }
  bool spoilt() const { return spoilt_.load(std::memory_order_relaxed); }

  // A program that no warm-up has run answers its first request without the JIT's optimisation, which costs more than
  // many a run: those after it pay for that. HurryOnce() says so; true once.
  void HurryOnce() { hurry_.store(true, std::memory_order_relaxed); }
  bool TakeHurry() {
    return hurry_.load(std::memory_order_relaxed) && hurry_.exchange(false, std::memory_order_relaxed);
  }

  // What a warm-up found out about the outputs; `key` says which warm-up, on which weights.
  std::optional<std::vector<TensorInfo>> Warmed(const std::string& key) const ABSL_LOCKS_EXCLUDED(mu_);
  void SetWarmed(const std::string& key, std::vector<TensorInfo> outputs) ABSL_LOCKS_EXCLUDED(mu_);

 private:
  const bool keeps_;
  std::atomic<bool> spoilt_{false};
  std::atomic<bool> hurry_{false};
  WrittenStateMemo written_;
  mutable Mutex mu_;
  // Guarded by mu_, which the importer's callback cannot say.
  std::vector<c10::IValue> constants_;     // before importer_, which keeps a pointer to it
  const ScriptArchive* source_ = nullptr;  // while binding: where importer_ finds code
  std::shared_ptr<torch::jit::CompilationUnit> unit_;
  torch::jit::SourceImporter importer_;
  bool has_constants_ = false;
  std::map<std::string, std::vector<TensorInfo>> warmed_ ABSL_GUARDED_BY(mu_);
};

}  // namespace hearth
