#include "server/torch_backend/script_binder.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "server/base/check.h"
#include "server/base/clock.h"
#include "server/storage/weights.h"
#include "server/torch_backend/mapped_storage.h"
#include "server/torch_backend/torch_status.h"

namespace hearth {
namespace {

namespace jit = torch::jit;

constexpr std::uint64_t kMaxPickleBytes = 256ULL << 20;
constexpr std::uint64_t kMaxSourceBytes = 64ULL << 20;

bool CanMap(const Archive::Record& record) {
  return record.method == Archive::Method::kStored && record.data_offset % kWeightAlignment == 0;
}

// Adds up the records that the storages of one pickle live in.
void CountRecords(std::string_view folder, const PickleSummary& pickle, ScriptArchive& script) {
  for (const PickledStorage& storage : pickle.storages) {
    const Archive::Record* record = script.archive.Find(StrCat(folder, "/", storage.key));
    if (record == nullptr || record->size == 0) continue;
    if (CanMap(*record)) {
      script.mapped_bytes += record->size;
      script.populate_begin = std::min(script.populate_begin, record->data_offset);
      script.populate_end = std::max(script.populate_end, record->data_offset + record->size);
    } else {
      script.copied_bytes += record->size;
    }
  }
}

// storage/ words its refusals as sentences that begin with the file.
absl::Status About(const std::string& file, const absl::Status& status) {
  return absl::Status(status.code(), StrCat("'", file, "' ", FromAbsl(status.message())));
}

class Binder {
 public:
  Binder(const ScriptArchive& from, LoadReport& report)
      : from_(from),
        report_(report),
        unit_(std::make_shared<jit::CompilationUnit>()),
        importer_(unit_, &constants_,
                  [this](const std::string& qualifier) { return FindSource(qualifier); },
                  static_cast<std::size_t>(from.contents.version)) {}

  // Throws what LibTorch throws, and std::runtime_error for a record that does not unpack.
  BoundModule Bind() {
    const c10::IValue constants = ReadPickle("constants");
    for (const c10::IValue& constant : constants.toTupleRef().elements()) constants_.push_back(constant);
    jit::Module module(ReadPickle("data").toObject());
    return {std::move(module), constants_};
  }

  Duration parse_time() const { return parse_time_; }

 private:
  // The importer asks for "__torch__.vad.model"; the archive holds code/__torch__/vad/model.py.
  std::shared_ptr<jit::Source> FindSource(const std::string& qualifier) const {
    std::string path = StrCat("code/", qualifier, ".py");
    std::replace(path.begin() + 5, path.end() - 3, '.', '/');
    const Archive::Record* record = from_.archive.Find(path);
    if (record == nullptr) return nullptr;
    const auto bytes = from_.archive.Read(*record, kMaxSourceBytes);
    if (!bytes.ok()) throw std::runtime_error(std::string(FromAbsl(bytes.status().message())));
    return std::make_shared<jit::Source>(
        std::string_view(reinterpret_cast<const char*>(bytes->data()), bytes->size()), path, 1);
  }

  c10::IValue ReadPickle(const std::string& name) {
    const Archive::Record* record = from_.archive.Find(name + ".pkl");
    HEARTH_CHECK(record != nullptr);  // OpenScriptArchive() has walked it
    const auto pickle = from_.archive.Read(*record, kMaxPickleBytes);
    if (!pickle.ok()) throw std::runtime_error(std::string(FromAbsl(pickle.status().message())));
    std::size_t at = 0;
    const auto reader = [&](char* buffer, std::size_t length) {
      const std::size_t n = std::min(length, pickle->size() - at);
      std::memcpy(buffer, pickle->data() + at, n);
      at += n;
      return n;
    };
    const auto resolver = [this](const c10::QualifiedName& qualified) {
      const SteadyClock clock;
      const TimePoint start = clock.Now();
      c10::TypePtr type = importer_.loadType(qualified);
      parse_time_ += clock.Now() - start;
      return c10::StrongTypePtr(unit_, std::move(type));
    };
    jit::Unpickler unpickler(
        reader, resolver, jit::ObjLoaderFunc,
        [&](const std::string& key) { return Storage(StrCat(name, "/", key)); }, at::Device(at::kCPU));
    unpickler.set_version(static_cast<std::uint64_t>(from_.contents.version));
    return unpickler.parse_ivalue();
  }

  at::DataPtr Storage(const std::string& name) {
    const Archive::Record* record = from_.archive.Find(name);
    HEARTH_CHECK(record != nullptr);  // the walk has seen each storage's record
    report_.weight_bytes += record->size;
    if (CanMap(*record)) return MappedData(from_.file, record->data_offset);
    report_.copied_bytes += record->size;
    at::DataPtr copy = c10::GetAllocator(c10::DeviceType::CPU)->allocate(record->size);
    const absl::Status read =
        from_.archive.ReadInto(*record, {static_cast<std::byte*>(copy.get()), record->size});
    if (!read.ok()) throw std::runtime_error(std::string(FromAbsl(read.message())));
    return copy;
  }

  const ScriptArchive& from_;
  LoadReport& report_;
  std::vector<c10::IValue> constants_;  // before importer_, which keeps a pointer to it
  std::shared_ptr<jit::CompilationUnit> unit_;
  jit::SourceImporter importer_;
  Duration parse_time_{};
};

}  // namespace

absl::StatusOr<ScriptArchive> OpenScriptArchive(const std::filesystem::path& path) {
  HEARTH_ASSIGN_OR_RETURN(std::shared_ptr<const MappedFile> file, MappedFile::Open(path));
  return OpenScriptArchive(std::move(file));
}

absl::StatusOr<ScriptArchive> OpenScriptArchive(std::shared_ptr<const MappedFile> file) {
  const std::string name = ShortName(file->path());
  absl::StatusOr<Archive> opened = Archive::Open(file->bytes());
  if (!opened.ok()) return About(name, opened.status());
  absl::StatusOr<TorchScriptContents> contents = ReadTorchScript(*opened);
  if (!contents.ok()) return About(name, contents.status());
  ScriptArchive checked{std::move(file), *std::move(opened), *std::move(contents)};
  checked.populate_begin = checked.file->size();
  CountRecords("constants", checked.contents.constants, checked);
  CountRecords("data", checked.contents.data, checked);
  checked.populate_begin = std::min(checked.populate_begin, checked.populate_end);
  for (const Archive::Record& record : checked.archive.records()) {
    if (record.name.starts_with("code/") && record.name.ends_with(".py")) checked.code_bytes += record.size;
  }
  return checked;
}

absl::StatusOr<BoundModule> BindScript(const ScriptArchive& archive, LoadReport& report) {
  const SteadyClock clock;
  const TimePoint start = clock.Now();
  Duration parse{};
  auto bound = CatchTorch(ShortName(archive.file->path()), absl::StatusCode::kInvalidArgument, [&] {
    Binder binder(archive, report);
    BoundModule module = binder.Bind();
    parse = binder.parse_time();
    return module;
  });
  report[LoadPhase::kParse] += parse;
  report[LoadPhase::kBind] += clock.Now() - start - parse;
  return bound;
}

}  // namespace hearth
