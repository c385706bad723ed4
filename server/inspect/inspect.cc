#include "server/inspect/inspect.h"

#include <memory>
#include <nlohmann/json.hpp>
#include <span>
#include <utility>
#include <vector>

#include "server/base/cpu_features.h"
#include "server/storage/aoti_package.h"
#include "server/storage/archive.h"
#include "server/storage/torchscript_archive.h"
#include "server/storage/weights_file.h"

namespace hearth {
namespace {

using Json = nlohmann::ordered_json;

Json TensorJson(const std::string& name, const ElementType& type, const Shape& sizes,
                const std::vector<std::int64_t>& strides, std::uint64_t offset, bool mappable) {
  const std::uint64_t count = static_cast<std::uint64_t>(ElementCount(sizes).value_or(0));
  return {{"name", name},
          {"type", type.torch.empty() ? std::string(type.name) : std::string(type.torch)},
          {"shape", sizes},
          {"strides", strides},
          {"offset", offset},
          {"bytes", count * type.size},
          {"mappable", mappable}};
}

Json FileJson(const MappedFile& file, std::string_view format) {
  return {{"file", file.path().string()},
          {"bytes", file.size()},
          {"cached_bytes", file.CachedBytes(0, file.size())},
          {"format", format}};
}

// The tensors of one pickle of an archive.
void AddPickle(const Archive& archive, std::string_view folder, const PickleSummary& pickle, Json& out,
               std::uint64_t& mappable) {
  for (const PickledTensor& tensor : pickle.tensors) {
    const PickledStorage& storage = pickle.storages[tensor.storage];
    const std::string name = StrCat(folder, "/", storage.key);
    const Archive::Record* record = archive.Find(name);
    const std::uint64_t begin = record == nullptr ? 0 : record->data_offset;
    out.push_back(TensorJson(name, *tensor.type, tensor.sizes, tensor.strides,
                             begin + static_cast<std::uint64_t>(tensor.offset) * tensor.type->size,
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
  AddPickle(archive, "data", contents.data, tensors, mappable);
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
    tensors.push_back(TensorJson(
        tensor.name, *tensor.type, tensor.sizes, tensor.strides,
        storage.offset + static_cast<std::uint64_t>(tensor.offset) * tensor.type->size, storage.mappable()));
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

absl::StatusOr<Json> InspectPackage(const std::filesystem::path& path) {
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

}  // namespace

absl::StatusOr<std::string> Inspect(const std::filesystem::path& path) {
  const auto dump = [](const Json& json) {
    return json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
  };
  std::error_code error;
  if (path.extension() == ".pt2" || std::filesystem::is_directory(path, error)) {
    HEARTH_ASSIGN_OR_RETURN(const Json json, InspectPackage(path));
    return dump(json);
  }
  HEARTH_ASSIGN_OR_RETURN(const std::shared_ptr<const MappedFile> file, MappedFile::Open(path));
  if (const absl::StatusOr<Archive> archive = Archive::Open(file->bytes());
      archive.ok() && archive->kind() == ArchiveKind::kTorchScript) {
    const absl::StatusOr<Json> json = InspectScript(*file, *archive);
    if (json.ok()) return dump(*json);
    return AboutFile(path, json.status());
  }
  HEARTH_ASSIGN_OR_RETURN(const Weights weights, ReadWeights(path));
  return dump(WeightsJson(*file, weights));
}

}  // namespace hearth
