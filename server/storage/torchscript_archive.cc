#include "server/storage/torchscript_archive.h"

#include "absl/strings/numbers.h"
#include "server/storage/archive_pickle.h"

namespace hearth {
namespace {

// A decimal number, perhaps with a line end behind it.
absl::StatusOr<std::int64_t> ReadVersion(const Archive& archive) {
  const Archive::Record* record = archive.Find("version");
  if (record == nullptr) record = archive.Find(".data/version");
  std::int64_t version = 0;
  if (record != nullptr) {
    HEARTH_ASSIGN_OR_RETURN(const std::vector<std::byte> text, archive.Read(*record, 64));
    if (absl::SimpleAtoi(std::string(reinterpret_cast<const char*>(text.data()), text.size()),
                         &version) &&
        version > 0) {
      return version;
    }
  }
  return absl::InvalidArgumentError("does not say which version of the file format it has");
}

}  // namespace

absl::StatusOr<TorchScriptContents> ReadTorchScript(const Archive& archive) {
  HEARTH_RETURN_IF_ERROR(RequireTorchScript(archive));
  TorchScriptContents contents;
  HEARTH_ASSIGN_OR_RETURN(contents.version, ReadVersion(archive));
  HEARTH_ASSIGN_OR_RETURN(contents.constants, WalkArchive(archive, "constants", PickleDialect::kTorchScript));
  HEARTH_ASSIGN_OR_RETURN(contents.data, WalkArchive(archive, "data", PickleDialect::kTorchScript));
  return contents;
}

}  // namespace hearth
