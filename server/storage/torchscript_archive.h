// An archive that torch.jit.save wrote, checked as far as that goes without running it.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "server/base/status.h"
#include "server/storage/archive.h"
#include "server/storage/pickle_walker.h"

namespace hearth {

// What both pickles of an archive say. Storage keys of `constants` name records in constants/,
// those of `data` records in data/.
struct TorchScriptContents {
  PickleSummary constants;
  PickleSummary data;
  std::int64_t version = 0;  // of the file format

  std::uint64_t weight_bytes() const { return constants.storage_bytes() + data.storage_bytes(); }
};

// INVALID_ARGUMENT when LibTorch must not be given this archive, with what to do about it. Reads no
// weights. The text continues a sentence that begins with the file's name.
absl::StatusOr<TorchScriptContents> ReadTorchScript(const Archive& archive);

}  // namespace hearth
