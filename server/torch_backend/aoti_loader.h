// The loader of AOTInductor packages. No torch headers: app.cc includes this.
#pragma once

#include <filesystem>
#include <memory>

#include "server/model/loader.h"
#include "server/storage/mapped_files.h"
#include "server/torch_backend/background_verifier.h"
#include "server/torch_backend/devices.h"

namespace hearth {

struct AotiOptions {
  bool populate = true;  // fault in the weights' pages on the load thread, if model.yaml does not say (residency)
  int runs = 1;          // of one model at the same time: as many as there are compute threads
  std::filesystem::path temporary;  // where archives are unpacked; empty: TMPDIR, or /tmp
  std::shared_ptr<MappedFiles> mapped_files;  // shared with other loaders; null: one of its own
  std::shared_ptr<BackgroundVerifier> verifier = nullptr;  // likewise, for integrity: background
  std::shared_ptr<Devices> devices = nullptr;              // null: those that LibTorch has
};

// A package is native code and runs as the daemon itself: serve only what you trust. What it was
// compiled for is compared with this machine before any of it runs.
std::unique_ptr<Loader> MakeAotiLoader(AotiOptions options);

}  // namespace hearth
