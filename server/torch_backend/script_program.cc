#include "server/torch_backend/script_program.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "server/base/check.h"
#include "server/model/phase_timer.h"
#include "server/torch_backend/mapped_storage.h"
#include "server/torch_backend/torch_status.h"
#include "server/torch_backend/uploader.h"

namespace hearth {
namespace {

namespace jit = torch::jit;

constexpr std::uint64_t kMaxSourceBytes = 64ULL << 20;

// Throws: it is called by LibTorch.
std::vector<std::byte> ReadOrThrow(const Archive& archive, const Archive::Record& record,
                                   std::uint64_t max_bytes) {
  auto bytes = archive.Read(record, max_bytes);
  if (!bytes.ok()) throw std::runtime_error(std::string(FromAbsl(bytes.status().message())));
  return *std::move(bytes);
}

// The importer asks for "__torch__.vad.model"; the archive holds code/__torch__/vad/model.py.
std::shared_ptr<jit::Source> FindSource(const ScriptArchive& from, const std::string& qualifier) {
  std::string path = StrCat("code/", qualifier, ".py");
  std::replace(path.begin() + 5, path.end() - 3, '.', '/');
  const Archive::Record* record = from.archive.Find(path);
  if (record == nullptr) return nullptr;
  const std::vector<std::byte> bytes = ReadOrThrow(from.archive, *record, kMaxSourceBytes);
  return std::make_shared<jit::Source>(
      std::string_view(reinterpret_cast<const char*>(bytes.data()), bytes.size()), path, 1);
}

at::DataPtr Storage(const ScriptArchive& from, const std::string& name, bool copy, LoadReport& report) {
  const Archive::Record* record = from.archive.Find(name);
  HEARTH_CHECK(record != nullptr);  // the walk has seen each storage's record
  report.weight_bytes += record->size;
  if (record->mappable() && !copy) return MappedData(from.file, record->data_offset);
  report.copied_bytes += record->size;
  at::DataPtr data = c10::GetAllocator(c10::DeviceType::CPU)->allocate(record->size);
  const absl::Status read =
      from.archive.ReadInto(*record, {static_cast<std::byte*>(data.get()), record->size});
  if (!read.ok()) throw std::runtime_error(std::string(FromAbsl(read.message())));
  return data;
}

// Records of tensors that are on a device already, by their names. Empty for the host.
using OnDevice = std::map<std::string, std::shared_ptr<const at::DataPtr>>;

// Those that `pickle`, the one of that name, refers to.
absl::Status UploadRecords(const ScriptArchive& from, const std::string& name, const PickleSummary& pickle,
                           Uploader& uploader, OnDevice& uploaded) {
  std::vector<std::byte> inflated;
  for (const PickledStorage& storage : pickle.storages) {
    std::string key = StrCat(name, "/", storage.key);
    const Archive::Record* record = from.archive.Find(key);
    if (record == nullptr || record->size == 0) continue;  // empty tensors have none
    std::span<const std::byte> bytes;
    if (record->mappable()) {
      bytes = from.file->bytes().subspan(record->data_offset, record->size);
    } else {
      inflated.resize(record->size);
      HEARTH_RETURN_IF_ERROR(from.archive.ReadInto(*record, inflated));
      bytes = inflated;
    }
    HEARTH_ASSIGN_OR_RETURN(uploaded[std::move(key)], uploader.Upload(bytes));
  }
  return absl::OkStatus();
}

// Reads one pickle of an archive with the classes that `importer` knows.
class PickleReader {
 public:
  PickleReader(const ScriptArchive& from, std::shared_ptr<jit::CompilationUnit> unit, jit::SourceImporter& importer,
               const OnDevice& uploaded, LoadReport& report, PhaseTimer& binding)
      : from_(from),
        unit_(std::move(unit)),
        importer_(importer),
        uploaded_(uploaded),
        report_(report),
        binding_(binding) {}

  c10::IValue Read(const std::string& name, bool copy_weights) {
    const Archive::Record* record = from_.archive.Find(name + ".pkl");
    HEARTH_CHECK(record != nullptr);  // OpenScriptArchive() has walked it
    const std::vector<std::byte> pickle = ReadOrThrow(from_.archive, *record, PickleLimits{}.max_bytes);
    std::size_t at = 0;
    const auto reader = [&](char* buffer, std::size_t length) {
      const std::size_t n = std::min(length, pickle.size() - at);
      std::memcpy(buffer, pickle.data() + at, n);
      at += n;
      return n;
    };
    const auto resolver = [this](const c10::QualifiedName& qualified) {
      const PhaseTimer timer(report_, LoadPhase::kParse, &binding_);
      return c10::StrongTypePtr(unit_, importer_.loadType(qualified));
    };
    jit::Unpickler unpickler(
        reader, resolver, jit::ObjLoaderFunc,
        [&](const std::string& key) { return StorageOf(StrCat(name, "/", key), copy_weights); },
        at::Device(at::kCPU), /*use_storage_device=*/true);
    unpickler.set_version(static_cast<std::uint64_t>(from_.contents.version));
    return unpickler.parse_ivalue();
  }

 private:
  at::DataPtr StorageOf(const std::string& name, bool copy) const {
    const auto uploaded = uploaded_.find(name);
    if (uploaded == uploaded_.end()) return Storage(from_, name, copy, report_);
    report_.weight_bytes += from_.archive.Find(name)->size;
    return ShareMemory(uploaded->second);
  }

  const ScriptArchive& from_;
  const std::shared_ptr<jit::CompilationUnit> unit_;
  jit::SourceImporter& importer_;
  const OnDevice& uploaded_;
  LoadReport& report_;
  PhaseTimer& binding_;  // parsing happens inside it
};

// Before their tensors are made: some read what they are made of (quantised weights are packed).
absl::StatusOr<OnDevice> UploadAll(const ScriptArchive& archive, bool constants, Device& device,
                                   const std::stop_token& stop, LoadReport& report, PhaseTimer& binding) {
  OnDevice uploaded;
  if (device.is_host()) return uploaded;
  PhaseTimer timer(report, LoadPhase::kToDevice, &binding);
  auto done = CatchTorch(StrCat("copy the weights to the device '", device.name(), "'"), absl::StatusCode::kInternal,
                         [&]() -> absl::Status {
                           Uploader uploader(device, stop);
                           if (constants) {
                             HEARTH_RETURN_IF_ERROR(UploadRecords(archive, "constants", archive.contents.constants,
                                                                  uploader, uploaded));
                           }
                           HEARTH_RETURN_IF_ERROR(
                               UploadRecords(archive, "data", archive.contents.data, uploader, uploaded));
                           uploader.Finish();
                           timer.AddBytes(uploader.bytes());
                           return absl::OkStatus();
                         });
  HEARTH_RETURN_IF_ERROR(done.ok() ? *done : done.status());
  return uploaded;
}

}  // namespace

ScriptProgram::ScriptProgram(std::int64_t format_version, bool keeps)
    : keeps_(keeps),
      unit_(std::make_shared<jit::CompilationUnit>()),
      importer_(unit_, &constants_,
                [this](const std::string& qualifier) {
                  HEARTH_CHECK(source_ != nullptr);  // code is asked for while binding, never by a run
                  return FindSource(*source_, qualifier);
                },
                static_cast<std::size_t>(format_version)) {}

absl::StatusOr<BoundModule> ScriptProgram::Bind(const ScriptArchive& archive, Device& device, LoadReport& report,
                                                const std::stop_token& stop) {
  MutexLock lock(mu_);
  PhaseTimer binding(report, LoadPhase::kBind);
  HEARTH_ASSIGN_OR_RETURN(const OnDevice uploaded,
                          UploadAll(archive, !has_constants_, device, stop, report, binding));
  auto bound = CatchTorch(ShortName(archive.file->path()), absl::StatusCode::kInvalidArgument, [&] {
    source_ = &archive;
    PickleReader reader(archive, unit_, importer_, uploaded, report, binding);
    if (!std::exchange(has_constants_, true)) {
      const c10::IValue constants = reader.Read("constants", keeps_);
      for (const c10::IValue& constant : constants.toTupleRef().elements()) constants_.push_back(constant);
    }
    jit::Module module(reader.Read("data", false).toObject());
    if (!device.torch().is_cpu()) module.to(device.torch());  // what has no bytes to upload
    return BoundModule{std::move(module), constants_, shared_from_this()};
  });
  source_ = nullptr;
  return bound;
}

std::optional<std::vector<TensorInfo>> ScriptProgram::Warmed(const std::string& key) const {
  MutexLock lock(mu_);
  const auto at = warmed_.find(key);
  return at == warmed_.end() ? std::nullopt : std::optional(at->second);
}

void ScriptProgram::SetWarmed(const std::string& key, std::vector<TensorInfo> outputs) {
  MutexLock lock(mu_);
  warmed_[key] = std::move(outputs);
}

}  // namespace hearth
