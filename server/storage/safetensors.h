// Reader of safetensors files: 8 bytes of length, a JSON header, the tensors' bytes.
//
// Nothing in the file is trusted: as in the reference implementation, the tensors have to cover the
// bytes behind the header exactly, without gap or overlap, and the header may have 100 MB. Tensors of
// bytes whose names begin with "__padding__" fill gaps, and are checked and left out.
//
// "sha256.NAME" in __metadata__ is the checksum of tensor NAME. The format leaves metadata to whoever
// writes it, so what does not look like a checksum is no mistake and is passed over.
#pragma once

#include <memory>

#include "server/base/status.h"
#include "server/storage/weights.h"

namespace hearth {

// Whether it begins as such a file does: with a header that it has room for.
bool LooksLikeSafetensors(std::span<const std::byte> file);
// Whether a header might begin where it should, whatever length is stated before it.
bool HasSafetensorsBrace(std::span<const std::byte> file);

// INVALID_ARGUMENT; the text continues a sentence that begins with the file's name.
absl::StatusOr<Weights> ReadSafetensors(const std::shared_ptr<const MappedFile>& file);

namespace safetensors_internal {
// The same on bytes; storages have no file. For tests and fuzzing.
absl::StatusOr<Weights> Parse(std::span<const std::byte> file);
}  // namespace safetensors_internal

}  // namespace hearth
