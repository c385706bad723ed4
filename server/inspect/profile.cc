#include "server/inspect/profile.h"

#include <memory>
#include <optional>
#include <utility>

#include "server/storage/catalog.h"
#include "server/inspect/report_json.h"

namespace hearth {

namespace fs = std::filesystem;

absl::StatusOr<ModelSpec> inspect_internal::SpecOf(const fs::path& path) {
  std::error_code error;
  const fs::path full = fs::absolute(path, error).lexically_normal();
  if (!fs::is_directory(full, error) || FormatOf(full) == "aoti") {
    return ModelSpec{{full.stem().string(), 1}, FormatOf(full), full, {}};
  }
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
