#include "server/storage/aoti_package.h"

#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <set>
#include <string_view>
#include <system_error>
#include <utility>

#include "server/storage/file_id.h"

namespace hearth {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kPrograms = "data/aotinductor/";
constexpr std::string_view kUsualModel = "model";
constexpr std::string_view kExportedGraphs = "models/";  // where torch.export.save puts them
constexpr std::size_t kMaxFiles = 10000;
constexpr std::uint64_t kMaxMetadataBytes = 1 << 20;
constexpr std::uint64_t kMaxUnpackedBytes = std::uint64_t{64} << 30;

absl::Status Bad(std::string_view what) { return absl::InvalidArgumentError(std::string(what)); }

absl::Status NotCompiled() {
  return Bad(
      "is a program that torch.export.save wrote, which is not compiled; `hearth pack --format aoti` makes a "
      "package of it that can be served");
}

bool IsSource(std::string_view name) {
  constexpr std::array<std::string_view, 4> kSources = {".cpp", ".h", ".o", ".txt"};
  return std::any_of(kSources.begin(), kSources.end(),
                     [&](std::string_view ending) { return name.ends_with(ending); });
}

// Where "data/aotinductor/" begins in a record's whole name.
std::optional<std::size_t> FindPrograms(std::string_view name) {
  const std::size_t at = name.find(kPrograms);
  if (at == name.npos || (at > 0 && name[at - 1] != '/')) return std::nullopt;
  return at;
}

std::string WholeName(const Archive& archive, const Archive::Record& record) {
  return archive.top_folder().empty() ? record.name : StrCat(archive.top_folder(), "/", record.name);
}

bool IsDirectory(const fs::path& path) {
  std::error_code error;
  return fs::is_directory(path, error);
}

// The folder itself, or the only one in it: unzip makes one of the archive's own name.
fs::path RootOf(const fs::path& path) {
  if (IsDirectory(path / kPrograms)) return path;
  std::error_code error;
  for (const fs::directory_entry& entry : fs::directory_iterator(path, error)) {
    if (IsDirectory(entry.path() / kPrograms)) return entry.path();
  }
  return path;
}

}  // namespace

absl::StatusOr<AotiPackage> AotiPackage::Open(const fs::path& path) {
  AotiPackage package;
  package.path_ = path;
  const auto open = [&]() -> absl::Status {
    HEARTH_RETURN_IF_ERROR(IsDirectory(path) ? package.ListDirectory() : package.ListArchive());
    HEARTH_RETURN_IF_ERROR(package.Choose());
    return package.ReadMetadata();
  };
  if (!IsDirectory(path)) {
    HEARTH_ASSIGN_OR_RETURN(package.file_, MappedFile::Open(path));
    package.ids_ = {package.file_->id()};
  }
  if (const absl::Status opened = open(); !opened.ok()) return AboutFile(path, opened);
  return package;
}

absl::Status AotiPackage::ListDirectory() {
  root_ = RootOf(path_);
  if (!IsDirectory(root_ / kPrograms)) {
    if (IsDirectory(root_ / kExportedGraphs)) return NotCompiled();
    return Bad("is a directory, but not of an AOTInductor package: it has no data/aotinductor/");
  }
  std::error_code error;
  fs::recursive_directory_iterator it(root_ / kPrograms, error);
  for (; !error && it != fs::recursive_directory_iterator(); it.increment(error)) {
    struct stat status{};
    const std::string name = it->path().lexically_relative(root_).generic_string();
    if (::stat(it->path().c_str(), &status) != 0) {
      const absl::Status unreadable = ErrnoStatus(errno, StrCat("has a file '", name, "' that cannot be read"));
      return unreadable;
    }
    if (S_ISDIR(status.st_mode)) continue;
    if (!S_ISREG(status.st_mode)) return Bad(StrCat("has '", name, "', which is no regular file"));
    if (files_.size() == kMaxFiles) return Bad("has too many files");
    if (!IsSource(name)) files_.push_back({name, static_cast<std::uint64_t>(status.st_size)});
    ids_.push_back(FileIdOf(status));
  }
  if (error) return ErrnoStatus(error.value(), "cannot be read");
  return absl::OkStatus();
}

absl::Status AotiPackage::ListArchive() {
  HEARTH_ASSIGN_OR_RETURN(archive_, Archive::Open(file_->bytes()));
  std::uint64_t total = 0;
  bool exported = false;
  for (const Archive::Record& record : archive_->records()) {
    const std::string name = WholeName(*archive_, record);
    exported |= record.name.starts_with(kExportedGraphs);
    const auto at = FindPrograms(name);
    if (!at || IsSource(name)) continue;
    if (files_.empty()) folder_ = name.substr(0, *at);
    if (name.substr(0, *at) != folder_) continue;
    total += std::min(record.size, kMaxUnpackedBytes);
    if (files_.size() == kMaxFiles || total > kMaxUnpackedBytes) return Bad("unpacks to too much");
    files_.push_back({name.substr(*at), record.size});
  }
  if (!files_.empty()) return absl::OkStatus();
  if (exported) return NotCompiled();
  if (archive_->kind() == ArchiveKind::kTorchScript) {
    return Bad("is a TorchScript archive, not an AOTInductor package; serve it as model.pt");
  }
  return Bad("is a zip file, but not an AOTInductor package: it has no data/aotinductor/");
}

// Which program, and its library.
absl::Status AotiPackage::Choose() {
  std::sort(files_.begin(), files_.end(), [](const File& a, const File& b) { return a.name < b.name; });
  std::set<std::string> models;
  for (const File& file : files_) {
    const std::string below = file.name.substr(kPrograms.size());
    if (below.find('/') != below.npos) models.insert(below.substr(0, below.find('/')));
  }
  if (models.empty()) return Bad("has no compiled library; compile it without package_cpp_only");
  if (!models.contains(std::string(kUsualModel)) && models.size() > 1) {
    return Bad(StrCat("has several programs (", QuotedList(models), "), none of which is called 'model'"));
  }
  model_ = models.contains(std::string(kUsualModel)) ? kUsualModel : *models.begin();
  const std::string folder = StrCat(kPrograms, model_, "/");
  std::erase_if(files_, [&](const File& file) { return !file.name.starts_with(folder); });
  std::vector<std::size_t> libraries;
  for (std::size_t i = 0; i < files_.size(); ++i) {
    if (files_[i].name.ends_with(".so")) libraries.push_back(i);
  }
  if (libraries.size() != 1) {
    return Bad(libraries.empty() ? "has no compiled library; compile it without package_cpp_only"
                                 : "has more than one library for one program");
  }
  library_ = libraries.front();
  return absl::OkStatus();
}

absl::Status AotiPackage::ReadMetadata() {
  const std::string& so = library().name;
  const std::string name = StrCat(so.substr(0, so.size() - 3), "_metadata.json");
  const auto found = std::find_if(files_.begin(), files_.end(), [&](const File& f) { return f.name == name; });
  if (found == files_.end()) return absl::OkStatus();
  if (found->size > kMaxMetadataBytes) return Bad("has too much metadata");
  HEARTH_ASSIGN_OR_RETURN(const Content content, Read(*found));
  HEARTH_ASSIGN_OR_RETURN(
      metadata_, ParseAotiMetadata({reinterpret_cast<const char*>(content.bytes.data()), content.bytes.size()}));
  has_metadata_ = true;
  return absl::OkStatus();
}

absl::StatusOr<AotiPackage::Content> AotiPackage::Read(const File& file) const {
  if (file.size == 0) return Content{};
  if (!archive_) {
    HEARTH_ASSIGN_OR_RETURN(std::shared_ptr<const MappedFile> mapped, MappedFile::Open(root_ / file.name));
    const std::span<const std::byte> bytes = mapped->bytes();
    return Content{bytes, std::move(mapped)};
  }
  std::string name = folder_ + file.name;
  if (!archive_->top_folder().empty()) name.erase(0, archive_->top_folder().size() + 1);
  const Archive::Record* record = archive_->Find(name);
  if (const auto view = archive_->View(*record)) return Content{*view, file_};
  HEARTH_ASSIGN_OR_RETURN(std::vector<std::byte> bytes, archive_->Read(*record));
  auto owner = std::make_shared<const std::vector<std::byte>>(std::move(bytes));
  return Content{*owner, owner};
}

}  // namespace hearth
