#include "server/inspect/inspect.h"

#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "server/base/cpu_features.h"
#include "server/inspect/profile.h"
#include "server/storage/aoti_package.h"
#include "server/storage/archive.h"
#include "server/storage/archive_pickle.h"
#include "server/storage/catalog.h"
#include "server/storage/torchscript_archive.h"
#include "server/storage/weights_file.h"

namespace hearth {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

// `offset`: in the file; nothing where the elements do not lie there as they are.
Json TensorJson(const std::string& name, const ElementType& type, const Shape& sizes,
                const std::vector<std::int64_t>& strides, std::optional<std::uint64_t> offset, bool mappable) {
  const std::uint64_t bytes = static_cast<std::uint64_t>(ElementCount(sizes).value_or(0)) * type.size;
  return {{"name", name},
          {"type", type.torch.empty() ? std::string(type.name) : std::string(type.torch)},
          {"shape", sizes},
          {"strides", strides},
          {"offset", offset && bytes > 0 ? Json(*offset) : Json()},
          {"bytes", bytes},
          {"mappable", mappable && bytes > 0}};
}

Json FileJson(const MappedFile& file, std::string_view format) {
  return {{"file", file.path().string()},
          {"bytes", file.size()},
          {"cached_bytes", file.CachedBytes(0, file.size())},
          {"format", format}};
}

// The tensors of one pickle of an archive. Those that are no attributes have the names of their records.
void AddPickle(const Archive& archive, std::string_view folder, const PickleSummary& pickle, Json& out,
               std::uint64_t& mappable) {
  for (const PickledTensor& tensor : pickle.tensors) {
    const PickledStorage& storage = pickle.storages[tensor.storage];
    const std::string name = StrCat(folder, "/", storage.key);
    const Archive::Record* record = archive.Find(name);
    std::optional<std::uint64_t> offset;
    if (record != nullptr && record->method == Archive::Method::kStored) {
      offset = record->data_offset + static_cast<std::uint64_t>(tensor.offset) * tensor.type->size;
    }
    out.push_back(TensorJson(tensor.name.empty() ? name : tensor.name, *tensor.type, tensor.sizes, tensor.strides, offset,
                             record != nullptr && record->mappable()));
  }
  for (const PickledStorage& storage : pickle.storages) {
    const Archive::Record* record = archive.Find(StrCat(folder, "/", storage.key));
    if (record != nullptr && record->mappable()) mappable += record->size;
  }
}

absl::StatusOr<Json> InspectScript(const MappedFile& file, const Archive& archive) {
  HEARTH_ASSIGN_OR_RETURN(const TorchScriptContents contents, ReadTorchScript(archive));
  Json json = FileJson(file, "torchscript");
  std::uint64_t mappable = 0;
  Json tensors = Json::array(), code = Json::array();
  AddPickle(archive, "constants", contents.constants, tensors, mappable);
  HEARTH_ASSIGN_OR_RETURN(const PickleSummary data,
                          WalkArchive(archive, "data", PickleDialect::kTorchScript, TensorNames::kYes));
  AddPickle(archive, "data", data, tensors, mappable);
  for (const Archive::Record& record : archive.records()) {
    if (record.name.starts_with("code/") && record.name.ends_with(".py")) {
      code.push_back({{"name", record.name}, {"bytes", record.size}});
    }
  }
  json["weight_bytes"] = contents.weight_bytes();
  json["mappable_bytes"] = mappable;
  json["classes"] = contents.data.classes;
  json["code"] = std::move(code);
  json["tensors"] = std::move(tensors);
  return json;
}

Json WeightsJson(const MappedFile& file, const Weights& weights) {
  Json json = FileJson(file, "weights");
  Json tensors = Json::array();
  for (const WeightTensor& tensor : weights.tensors) {
    const WeightStorage& storage = weights.storages[tensor.storage];
    std::optional<std::uint64_t> offset;
    if (storage.unpack == nullptr) {
      offset = storage.offset + static_cast<std::uint64_t>(tensor.offset) * tensor.type->size;
    }
    tensors.push_back(
        TensorJson(tensor.name, *tensor.type, tensor.sizes, tensor.strides, offset, storage.mappable()));
  }
  json["weight_bytes"] = weights.mapped_bytes() + weights.copied_bytes();
  json["mappable_bytes"] = weights.mapped_bytes();
  json["tensors"] = std::move(tensors);
  return json;
}

Json AotiTensorsJson(const std::vector<AotiTensor>& tensors) {
  Json json = Json::array();
  for (const AotiTensor& tensor : tensors) {
    Json shape = Json::array();
    for (std::size_t i = 0; i < tensor.info.shape->size(); ++i) {
      shape.push_back(tensor.dimensions[i].empty() ? Json((*tensor.info.shape)[i]) : Json(tensor.dimensions[i]));
    }
    json.push_back({{"name", tensor.info.name}, {"datatype", ToString(tensor.info.dtype)}, {"shape", std::move(shape)}});
  }
  return json;
}

absl::StatusOr<Json> InspectPackage(const fs::path& path) {
  HEARTH_ASSIGN_OR_RETURN(const AotiPackage package, AotiPackage::Open(path));
  const AotiMetadata& metadata = package.metadata();
  Json missing = Json::array(), files = Json::array();
  if (const absl::StatusOr<CpuFeatures> here = ReadCpuFeatures(); here.ok()) {
    for (const std::string& feature : metadata.cpu_features) {
      if (!here->contains(feature)) missing.push_back(feature);
    }
  }
  std::uint64_t bytes = 0;
  for (const AotiPackage::File& file : package.files()) {
    bytes += file.size;
    files.push_back({{"name", file.name}, {"bytes", file.size}});
  }
  return Json{{"file", path.string()},
              {"bytes", bytes},
              {"format", "aoti"},
              {"machine", metadata.machine},
              {"device", metadata.device},
              {"cpu_features", metadata.cpu_features},
              {"missing_features", std::move(missing)},
              {"inputs", AotiTensorsJson(metadata.inputs)},
              {"outputs", AotiTensorsJson(metadata.outputs)},
              {"files", std::move(files)}};
}

absl::StatusOr<Json> InspectFile(const fs::path& path) {
  if (FormatOf(path) == "aoti") return InspectPackage(path);
  HEARTH_ASSIGN_OR_RETURN(const std::shared_ptr<const MappedFile> file, MappedFile::Open(path));
  if (const absl::StatusOr<Archive> archive = Archive::Open(file->bytes());
      archive.ok() && archive->kind() == ArchiveKind::kTorchScript) {
    absl::StatusOr<Json> json = InspectScript(*file, *archive);
    if (json.ok()) return json;
    return AboutFile(path, json.status());
  }
  HEARTH_ASSIGN_OR_RETURN(const Weights weights, ReadWeights(path));
  return WeightsJson(*file, weights);
}

// A file, or the shards that an index stands for.
absl::Status AddFiles(const fs::path& path, Json& files) {
  HEARTH_ASSIGN_OR_RETURN(const std::vector<fs::path> shards, WeightFiles(path));
  for (const fs::path& shard : shards) {
    HEARTH_ASSIGN_OR_RETURN(Json json, InspectFile(shard));
    files.push_back(std::move(json));
  }
  return absl::OkStatus();
}

// A version as the catalog has it: its program, and the weights beside it.
absl::StatusOr<Json> InspectVersion(const ModelSpec& spec) {
  Json files = Json::array();
  HEARTH_RETURN_IF_ERROR(AddFiles(spec.file, files));
  for (const fs::path& weights : spec.weights) HEARTH_RETURN_IF_ERROR(AddFiles(weights, files));
  return Json{{"format", "model"}, {"model", spec.id.name}, {"version", spec.id.version}, {"files", std::move(files)}};
}

absl::StatusOr<Json> InspectPath(const fs::path& path) {
  std::error_code error;
  if (path.filename().string().ends_with(".index.json")) {
    Json files = Json::array();
    HEARTH_RETURN_IF_ERROR(AddFiles(path, files));
    return Json{{"format", "index"}, {"file", path.string()}, {"files", std::move(files)}};
  }
  if (!fs::is_directory(path, error) || FormatOf(path) == "aoti") return InspectFile(path);
  const absl::StatusOr<ModelSpec> spec = inspect_internal::SpecOf(path);
  if (spec.ok()) return InspectVersion(*spec);
  absl::StatusOr<Json> package = InspectPackage(path);  // one may be unpacked into a folder of any name
  if (package.ok()) return package;
  return spec.status();
}

}  // namespace

absl::StatusOr<std::string> Inspect(const fs::path& path) {
  HEARTH_ASSIGN_OR_RETURN(const Json json, InspectPath(path));
  return json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

}  // namespace hearth
