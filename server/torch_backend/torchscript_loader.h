// The loader of TorchScript archives. No torch headers: app.cc includes this.
#pragma once

#include <memory>

#include "server/model/loader.h"
#include "server/storage/mapped_files.h"
#include "server/torch_backend/background_verifier.h"
#include "server/torch_backend/devices.h"
#include "server/torch_backend/kept_programs.h"

namespace hearth {

struct TorchScriptOptions {
  bool populate = true;  // fault in the weights' pages on the load thread, if model.yaml does not say (residency)
  std::uint64_t kept_program_bytes = 0;  // for programs that outlive their models (program_cache.h)
  std::shared_ptr<KeptPrograms> kept_programs = nullptr;  // where it stands how many those are
  // What models share; null: of this loader alone.
  std::shared_ptr<MappedFiles> mapped_files = nullptr;
  std::shared_ptr<BackgroundVerifier> verifier = nullptr;  // likewise, for integrity: background
  std::shared_ptr<Devices> devices = nullptr;              // null: those that LibTorch has
};

// Maps archives instead of copying them (script_program.h). Checks the whole structure of a file
// before LibTorch sees it. Remember that a TorchScript program is code: serve only what you trust.
std::unique_ptr<Loader> MakeTorchScriptLoader(TorchScriptOptions options);

}  // namespace hearth
