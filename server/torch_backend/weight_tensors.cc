#include "server/torch_backend/weight_tensors.h"

#include <thread>
#include <unordered_map>
#include <utility>

#include "server/base/parallel.h"
#include "server/torch_backend/mapped_storage.h"
#include "server/torch_backend/uploader.h"

namespace hearth {
namespace {

at::ScalarType ScalarTypeOf(const ElementType& type) {
  static const auto by_name = [] {
    std::unordered_map<std::string_view, at::ScalarType> types;
    for (int i = 0; i < static_cast<int>(at::ScalarType::NumOptions); ++i) {
      const auto scalar = static_cast<at::ScalarType>(i);
      types.emplace(c10::toString(scalar), scalar);
    }
    return types;
  }();
  const auto found = by_name.find(type.name);
  if (found != by_name.end()) return found->second;
  throw std::runtime_error(StrCat("this LibTorch has no element type ", type.name));
}

// One of the pieces that are read at the same time.
struct Piece {
  std::size_t storage, part;
};

std::span<const std::byte> BytesInFile(const WeightStorage& storage) {
  return storage.file->bytes().subspan(storage.offset, storage.size);
}

absl::Status Read(const WeightStorage& from, std::size_t part, at::Storage& to) {
  const std::span out(static_cast<std::byte*>(to.mutable_data()), from.size);
  if (from.unpack) return from.unpack(out, part);
  const auto bytes = BytesInFile(from);
  std::copy(bytes.begin(), bytes.end(), out.begin());
  return absl::OkStatus();
}

at::Storage StorageOf(std::size_t size, at::DataPtr data) {
  return {at::Storage::use_byte_size_t(), size, std::move(data)};
}

absl::StatusOr<std::vector<at::Storage>> StoragesInHost(const Weights& weights, const std::stop_token& stop,
                                                      LoadReport& report, PhaseTimer& binding) {
  std::vector<at::Storage> storages(weights.storages.size());
  std::vector<Piece> pieces;
  for (std::size_t i = 0; i < storages.size(); ++i) {
    const WeightStorage& from = weights.storages[i];
    report.weight_bytes += from.size;
    at::DataPtr data;
    if (from.mappable() && from.size > 0) {
      data = MappedData(from.file, from.offset);
    } else {
      data = c10::GetAllocator(c10::DeviceType::CPU)->allocate(from.size);
      report.copied_bytes += from.size;
      const std::size_t parts = from.size == 0 ? 0 : from.unpack ? from.parts : 1;
      for (std::size_t part = 0; part < parts; ++part) pieces.push_back({i, part});
    }
    storages[i] = StorageOf(from.size, std::move(data));
  }
  if (pieces.empty()) return storages;
  PhaseTimer timer(report, LoadPhase::kRead, &binding);
  timer.AddBytes(weights.copied_bytes());
  HEARTH_RETURN_IF_ERROR(
      ParallelFor(pieces.size(), std::thread::hardware_concurrency(), [&](std::size_t i) -> absl::Status {
        if (stop.stop_requested()) return absl::CancelledError("stopped while reading the weights");
        const auto [storage, part] = pieces[i];
        return Read(weights.storages[storage], part, storages[storage]);
      }));
  return storages;
}

absl::StatusOr<std::vector<at::Storage>> StoragesOnDevice(const Weights& weights, Device& device,
                                                          const std::stop_token& stop, LoadReport& report,
                                                          PhaseTimer& binding) {
  PhaseTimer timer(report, LoadPhase::kToDevice, &binding);
  Uploader uploader(device, stop);
  std::vector<at::Storage> storages;
  storages.reserve(weights.storages.size());
  std::vector<std::byte> unpacked;
  for (const WeightStorage& from : weights.storages) {
    report.weight_bytes += from.size;
    std::span<const std::byte> bytes;
    if (from.unpack && from.size > 0) {
      unpacked.resize(from.size);
      HEARTH_RETURN_IF_ERROR(
          ParallelFor(from.parts, std::thread::hardware_concurrency(), [&](std::size_t part) -> absl::Status {
            if (stop.stop_requested()) return absl::CancelledError("stopped while reading the weights");
            return from.unpack(unpacked, part);
          }));
      bytes = unpacked;
    } else if (from.size > 0) {
      bytes = BytesInFile(from);
    }
    HEARTH_ASSIGN_OR_RETURN(const auto memory, uploader.Upload(bytes));
    storages.push_back(StorageOf(from.size, ShareMemory(memory)));
  }
  uploader.Finish();
  timer.AddBytes(uploader.bytes());
  return storages;
}

}  // namespace

absl::StatusOr<std::vector<at::Tensor>> MakeTensors(const Weights& weights, Device& device, const std::stop_token& stop,
                                                    LoadReport& report, PhaseTimer& binding) {
  HEARTH_ASSIGN_OR_RETURN(const std::vector<at::Storage> storages,
                          device.is_host() ? StoragesInHost(weights, stop, report, binding)
                                           : StoragesOnDevice(weights, device, stop, report, binding));
  std::vector<at::Tensor> tensors;
  tensors.reserve(weights.tensors.size());
  for (const WeightTensor& tensor : weights.tensors) {
    const at::TensorOptions options = at::TensorOptions().dtype(ScalarTypeOf(*tensor.type)).device(device.torch());
    at::Tensor& made = tensors.emplace_back(at::empty({0}, options));
    made.set_(storages[tensor.storage], tensor.offset, tensor.sizes, tensor.strides);
    if (tensor.conjugated) made._set_conj(true);
    if (tensor.negated) made._set_neg(true);
  }
  return tensors;
}

absl::Status WeightComplaints::status() const {
  if (missing_.count + misfits_.count == 0) return absl::OkStatus();
  std::string text = "the weights do not go with the program";
  if (missing_.count > 0) absl::StrAppend(&text, "; missing: ", missing_.text);
  if (misfits_.count > 0) absl::StrAppend(&text, "; not fitting: ", misfits_.text);
  return absl::InvalidArgumentError(text);
}

void WeightComplaints::Add(List& list, std::string what) {
  if (list.count++ == kNamesInMessage) list.text += " and more";
  if (list.count > kNamesInMessage) return;
  if (list.count > 1) list.text += ", ";
  list.text += what;
}

}  // namespace hearth
