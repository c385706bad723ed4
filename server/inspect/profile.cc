#include "server/inspect/profile.h"

#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "server/storage/catalog.h"
#include "server/inspect/report_json.h"

namespace hearth {

namespace fs = std::filesystem;

namespace {

// A program whose weights lie beside it is nothing without them: its version is meant.
absl::StatusOr<ModelSpec> SpecOfProgram(const fs::path& full) {
  ModelSpec alone{{full.stem().string(), 1}, FormatOf(full), full, {}};
  const bool program = full.filename().string() == kProgramFile;
  if (!program && alone.format != "aoti") return alone;
  const fs::path folder = full.parent_path();
  HEARTH_ASSIGN_OR_RETURN(std::vector<fs::path> weights, WeightsBeside(folder, {}));
  if (weights.empty()) return alone;
  if (!ParseVersionFolder(folder.filename().string())) {
    if (program) alone.weights = std::move(weights);
    return alone;
  }
  HEARTH_ASSIGN_OR_RETURN(ModelSpec version, inspect_internal::SpecOf(folder));
  return version.file == full ? version : alone;
}

}  // namespace

absl::StatusOr<ModelSpec> inspect_internal::SpecOf(const fs::path& path) {
  std::error_code error;
  const fs::path full = fs::absolute(path, error).lexically_normal();
  if (!fs::is_directory(full, error) || FormatOf(full) == "aoti") return SpecOfProgram(full);
  const fs::path folder = full.has_filename() ? full : full.parent_path();
  const std::optional<std::int64_t> version = ParseVersionFolder(folder.filename().string());
  const fs::path model = version ? folder.parent_path() : folder;
  Catalog catalog({model.parent_path()});
  const std::string name = model.filename().string();
  HEARTH_RETURN_IF_ERROR(catalog.Rescan(name));
  HEARTH_ASSIGN_OR_RETURN(const ModelId id, catalog.Resolve(name, version));
  return catalog.Spec(id);
}

absl::StatusOr<std::string> Profile(const fs::path& path, const MakeLoader& make_loader) {
  HEARTH_ASSIGN_OR_RETURN(const ModelSpec spec, inspect_internal::SpecOf(path));
  const std::unique_ptr<Loader> loader = make_loader(spec.format);
  HEARTH_ASSIGN_OR_RETURN(const std::unique_ptr<Model> model, loader->Load(spec, {}));
  return ReportJson(spec.id, model->load_report());
}

}  // namespace hearth
