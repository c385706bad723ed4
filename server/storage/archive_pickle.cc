#include "server/storage/archive_pickle.h"

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

namespace hearth {

absl::StatusOr<PickleSummary> WalkArchive(const Archive& archive, const std::string& name,
                                          PickleDialect dialect, TensorNames names) {
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
  absl::StatusOr<PickleSummary> summary = WalkPickle(bytes, record_size, limits, dialect, names);
  if (summary.ok()) return summary;
  return Annotate(summary.status(), dialect == PickleDialect::kTorchScript
                                        ? StrCat("cannot be trusted: ", name, ".pkl")
                                        : "cannot be read");
}

}  // namespace hearth
