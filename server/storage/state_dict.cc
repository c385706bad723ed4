#include "server/storage/state_dict.h"

#include <string>
#include <utility>

#include "server/storage/archive.h"
#include "server/storage/archive_pickle.h"

namespace hearth {
namespace {

WeightStorage ToStorage(const std::shared_ptr<const MappedFile>& file,
                        const std::shared_ptr<const Archive>& archive, const PickledStorage& pickled) {
  WeightStorage storage{.file = file, .offset = 0, .size = pickled.bytes(), .unpack = {}};
  const Archive::Record* record = archive->Find(StrCat("data/", pickled.key));
  if (record == nullptr) return storage;  // of no bytes: the walk asks for a record otherwise
  storage.offset = record->data_offset;
  storage.verify = [record = *record](const ByteSource& bytes) { return Archive::VerifyChecksum(record, bytes); };
  if (record->method == Archive::Method::kDeflated) {
    storage.size = record->size;
    storage.unpack = [archive, record](std::span<std::byte> out, std::size_t) {
      return archive->ReadInto(*record, out);
    };
  }
  return storage;
}

}  // namespace

absl::StatusOr<Weights> ReadStateDict(const std::shared_ptr<const MappedFile>& file) {
  const MappedFile::Scattered scattered(*file);
  HEARTH_ASSIGN_OR_RETURN(Archive opened, Archive::Open(file->bytes()));
  HEARTH_RETURN_IF_ERROR(RequireTorchSave(opened));
  const auto archive = std::make_shared<const Archive>(std::move(opened));
  HEARTH_ASSIGN_OR_RETURN(const PickleSummary summary,
                          WalkArchive(*archive, "data", PickleDialect::kTorchSave));

  Weights weights;
  for (const PickledStorage& storage : summary.storages) {
    weights.storages.push_back(ToStorage(file, archive, storage));
  }
  for (const StateDictItem& named : summary.state_dict) {
    const PickledTensor& tensor = summary.tensors[named.tensor];
    if (tensor.quantized) {
      return absl::InvalidArgumentError(
          StrCat("holds a quantized tensor ('", named.name,
                 "'); quantized models are served as TorchScript, see `hearth pack`"));
    }
    weights.tensors.push_back(
        {named.name, tensor.storage, tensor.type, tensor.sizes, tensor.strides, tensor.offset,
         tensor.conjugated, tensor.negated});
  }
  return weights;
}

}  // namespace hearth
