#include "server/storage/torchscript_archive.h"

#include <optional>
#include <string_view>

#include "absl/strings/numbers.h"

namespace hearth {
namespace {

absl::StatusOr<PickleSummary> Walk(const Archive& archive, const std::string& name) {
  const Archive::Record* record = archive.Find(name + ".pkl");
  if (record == nullptr) {
    return absl::InvalidArgumentError(StrCat("has no ", name, ".pkl; the archive is incomplete"));
  }
  const PickleLimits limits;
  std::vector<std::byte> copy;
  std::span<const std::byte> bytes;
  if (const auto view = archive.View(*record)) {
    bytes = *view;
  } else {
    HEARTH_ASSIGN_OR_RETURN(copy, archive.Read(*record, limits.max_bytes));
    bytes = copy;
  }
  const auto record_size = [&](std::string_view key) -> std::optional<std::uint64_t> {
    const Archive::Record* storage = archive.Find(StrCat(name, "/", key));
    if (storage == nullptr) return std::nullopt;
    return storage->size;
  };
  absl::StatusOr<PickleSummary> summary = WalkPickle(bytes, record_size, limits);
  if (!summary.ok()) {
    return Annotate(summary.status(), StrCat("cannot be trusted: ", name, ".pkl"));
  }
  return summary;
}

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
  HEARTH_ASSIGN_OR_RETURN(contents.constants, Walk(archive, "constants"));
  HEARTH_ASSIGN_OR_RETURN(contents.data, Walk(archive, "data"));
  return contents;
}

}  // namespace hearth
