// Reader of torch.save files that hold a state_dict: tensors by name. No code of theirs ever runs.
#pragma once

#include <memory>

#include "server/base/status.h"
#include "server/storage/weights.h"

namespace hearth {

// INVALID_ARGUMENT for what is not the zip format of torch.save, and for a pickle that holds other
// objects than tensors and plain data; the text continues a sentence that begins with the file's name.
absl::StatusOr<Weights> ReadStateDict(const std::shared_ptr<const MappedFile>& file);

}  // namespace hearth
