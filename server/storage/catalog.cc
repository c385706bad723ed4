#include "server/storage/catalog.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <iterator>
#include <system_error>
#include <utility>

#include "absl/hash/hash.h"
#include "server/base/log.h"
#include "server/storage/class_names.h"
#include "server/storage/mapped_file.h"
#include "server/storage/model_yaml.h"
#include "server/storage/revision.h"

namespace hearth {
namespace {

namespace fs = std::filesystem;

constexpr std::array<std::string_view, 3> kExtensions = {".pt", ".jit", ".pt2"};  // the first one counts
constexpr std::string_view kPackage = ".pt2";        // of AOTInductor; its weights may lie apart
constexpr std::size_t kMaxTritonConfig = 1 << 20;
constexpr std::string_view kIndexExtension = ".index.json";
constexpr std::array<std::string_view, 6> kWeightExtensions = {".safetensors", ".pt", ".pth", ".bin", ".h5", ".hdf5"};

absl::Status PathError(const std::error_code& error, const fs::path& path) {
  return ErrnoStatus(error.value(), StrCat("'", path.string(), "' cannot be read"));
}

// The names in a folder that are not hidden, sorted, so that two scans of it read alike.
absl::StatusOr<std::vector<std::string>> Names(const fs::path& folder) {
  std::error_code error;
  std::vector<std::string> names;
  fs::directory_iterator it(folder, error);
  while (!error && it != fs::directory_iterator()) {
    std::string name = it->path().filename().string();
    if (!name.starts_with('.')) names.push_back(std::move(name));
    it.increment(error);
  }
  if (error) return PathError(error, folder);
  std::sort(names.begin(), names.end());
  return names;
}

// What is at `path`, links followed; not_found for a link that leads nowhere or may not be
// followed.
fs::file_type TypeOf(const fs::path& path) {
  std::error_code error;
  return fs::status(path, error).type();
}

struct VersionFiles {
  fs::path program;
  std::vector<fs::path> weights;
};

bool HoldsWeights(std::string_view name) {
  return std::any_of(kWeightExtensions.begin(), kWeightExtensions.end(),
                     [&](std::string_view extension) { return name.ends_with(extension); });
}

// The names that a version's program may have, the first one that is there counts.
std::vector<std::string> ProgramNames(const ModelOptions& options) {
  if (!options.program.empty()) return {options.program};
  std::vector<std::string> names;
  for (const std::string_view extension : kExtensions) names.push_back(StrCat("model", extension));
  names.emplace_back(kProgramFile);
  std::erase_if(names, [&](const std::string& name) { return !options.format.empty() && FormatOf(name) != options.format; });
  return names;
}

// What a version is loaded from. Something that is there but is no regular file counts: the loader
// says what is wrong with it. NOT_FOUND: nothing is there.
absl::StatusOr<VersionFiles> FindVersion(const fs::path& folder, const ModelOptions& options) {
  fs::path program;
  for (const std::string& name : ProgramNames(options)) {
    if (TypeOf(folder / name) == fs::file_type::not_found) continue;
    program = folder / name;
    break;
  }
  if (program.empty()) {
    return absl::NotFoundError(StrCat("'", ShortName(folder), "' has no ", QuotedList(ProgramNames(options))));
  }
  if (program.filename() != kProgramFile && program.extension() != kPackage) return VersionFiles{std::move(program), {}};
  HEARTH_ASSIGN_OR_RETURN(std::vector<fs::path> weights, WeightsBeside(folder, options.weights));
  if (weights.empty() && program.extension() != kPackage) {
    return absl::InvalidArgumentError(
        StrCat("'", ShortName(folder), "' has a program.pt but no weights; put them beside it, for example as "
               "model.safetensors, or name a whole TorchScript archive model.pt"));
  }
  return VersionFiles{std::move(program), std::move(weights)};
}

// "net" for "net.pt". Nothing for other names.
std::optional<std::string> BareModelName(std::string_view file) {
  for (const std::string_view extension : kExtensions) {
    if (file.ends_with(extension) && file.size() > extension.size()) {
      return std::string(file.substr(0, file.size() - extension.size()));
    }
  }
  return std::nullopt;
}

std::vector<std::string> Texts(const std::vector<fs::path>& paths) {
  std::vector<std::string> texts;
  for (const fs::path& path : paths) texts.push_back(path.string());
  return texts;
}

void Remark(log::Level level, std::string_view message, std::initializer_list<log::Field> fields) {
  if (log::Enabled(level)) log::Write(level, message, fields);
}

std::string Unknown(std::string_view model) {
  return StrCat("Request for unknown model: '", model, "' is not found");
}

absl::Status NotFound(std::string_view model, std::int64_t version, const std::vector<std::int64_t>& left_out,
                      const ModelOptions* options) {
  const bool chosen = std::find(left_out.begin(), left_out.end(), version) != left_out.end();
  return absl::NotFoundError(StrCat("Request for unknown model: '", model, "' version ", version, " is not found",
                                    chosen ? StrCat(": the policy in its ", options->source, " ('versions') leaves it out")
                                           : ""));
}

// Where two keys are that do not go together.
std::string Places(const ModelOptions& options) {
  if (options.source == "model.yaml or config.pbtxt") return "; one of them is in model.yaml, the other in config.pbtxt";
  if (options.source == "model.yaml" || options.source == "config.pbtxt") return StrCat("; both are in ", options.source);
  return StrCat("; they are in the ", options.source, ", or one of them in model.yaml");
}

// What only the whole of it can be judged by.
absl::Status CheckOptions(const ModelOptions& options) {
  const BatchingOptions& batching = options.batching;
  const std::int64_t least = batching.preferred.empty() ? 2 : std::max<std::int64_t>(2, batching.preferred.back());
  if (batching.enabled && options.max_batch_size < least) {
    return absl::InvalidArgumentError(StrCat("batching needs a max_batch_size of at least ", least, ", not ",
                                             options.max_batch_size, Places(options)));
  }
  if (options.max_batch_size <= 0) return absl::OkStatus();
  for (const std::vector<TensorInfo>* tensors : {&options.inputs, &options.outputs}) {
    for (const TensorInfo& info : *tensors) {
      if (!info.shape || (!info.shape->empty() && info.shape->front() == -1)) continue;
      return absl::InvalidArgumentError(StrCat("the shape ", ToString(*info.shape), " of '", info.name,
                                               "' must begin with -1, the batch dimension, because max_batch_size is ",
                                               options.max_batch_size, Places(options)));
    }
  }
  return absl::OkStatus();
}

absl::Status ReadAllClassNames(const fs::path& folder, ModelOptions& options) {
  for (auto& [output, classes] : options.class_names) {
    auto names = ReadClassNames(folder / classes.file);
    if (!names.ok()) return Annotate(names.status(), StrCat("class names of '", output, "'"));
    classes.names = *std::move(names);
  }
  return absl::OkStatus();
}

std::optional<std::int64_t> LabelIn(const ModelOptions* options, std::string_view label) {
  if (options == nullptr) return std::nullopt;
  const auto found = options->labels.find(std::string(label));
  if (found == options->labels.end()) return std::nullopt;
  return found->second;
}

}  // namespace

absl::StatusOr<std::vector<fs::path>> WeightsBeside(const fs::path& folder,
                                                    const std::vector<std::string>& named) {
  std::vector<fs::path> weights;
  for (const std::string& name : named) weights.push_back(folder / name);
  if (!weights.empty()) return weights;
  HEARTH_ASSIGN_OR_RETURN(const std::vector<std::string> names, Names(folder));
  for (const std::string& name : names) {
    if (name.ends_with(kIndexExtension)) return std::vector<fs::path>{folder / name};
    if (name != kProgramFile && HoldsWeights(name)) weights.push_back(folder / name);
  }
  return weights;
}

std::optional<std::int64_t> ParseVersionFolder(std::string_view name) {
  if (name.empty() || name[0] < '1' || name[0] > '9') return std::nullopt;
  std::int64_t version = 0;
  const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), version);
  if (error != std::errc() || end != name.data() + name.size()) return std::nullopt;
  return version;
}

std::string FormatOf(const fs::path& program) { return program.extension() == kPackage ? "aoti" : "torchscript"; }

bool IsModelName(std::string_view name) { return IsPlainName(name); }

Catalog::Catalog(std::vector<fs::path> roots, TritonConfigReader read_triton)
    : roots_(std::move(roots)), read_triton_(std::move(read_triton)), snapshot_(std::make_shared<const Snapshot>()) {}

std::shared_ptr<const Catalog::Snapshot> Catalog::snapshot() const {
  MutexLock lock(mu_);
  return snapshot_;
}

Catalog::Overrides Catalog::overrides() const {
  MutexLock lock(mu_);
  return overrides_;
}

std::shared_ptr<const TritonConfig> Catalog::Override(std::string_view model) const {
  MutexLock lock(mu_);
  const auto found = overrides_.find(model);
  return found == overrides_.end() ? nullptr : found->second;
}

const TritonConfig* Catalog::Reading::Override(const std::string& model) const {
  const auto found = overrides.find(model);
  return found == overrides.end() ? nullptr : found->second.get();
}

void Catalog::Publish(Snapshot snapshot) {
  auto next = std::make_shared<const Snapshot>(std::move(snapshot));
  std::vector<Move> moves;
  const std::shared_ptr<const Snapshot> before = this->snapshot();  // nobody else replaces it: scan_mu_ is held
  for (const auto& [model, entry] : *next) {
    const auto known = before->find(model);
    if (known != before->end() && known->second != entry) AddMoves(model, *known->second, *entry, moves);
  }
  MutexLock lock(mu_);
  std::move(moves.begin(), moves.end(), std::back_inserter(moves_));
  has_moves_.store(!moves_.empty(), std::memory_order_release);
  std::erase_if(unloaded_, [&](const std::string& model) { return !next->contains(model); });
  std::erase_if(overrides_, [&](const auto& of) { return !next->contains(of.first); });
  snapshot_.swap(next);  // the old one is freed after the lock
}

void Catalog::AddMoves(const std::string& model, const Entry& before, const Entry& after, std::vector<Move>& moves) {
  if (before.versions.empty() || after.versions.empty()) return;
  const std::int64_t from = before.versions.rbegin()->first;
  const std::int64_t to = after.versions.rbegin()->first;
  if (from < to) moves.push_back({model, "", from, to});  // one that was taken away is not wanted any more
  if (before.options == nullptr || after.options == nullptr) return;
  for (const auto& [label, version] : after.options->labels) {
    const auto known = before.options->labels.find(label);
    if (known != before.options->labels.end() && known->second != version) {
      moves.push_back({model, label, known->second, version});
    }
  }
}

std::vector<Catalog::Move> Catalog::TakeMoves() {
  MutexLock lock(mu_);
  has_moves_.store(false, std::memory_order_release);
  return std::exchange(moves_, {});
}

bool Catalog::IsFrom(const fs::path& folder, const Entry& entry) {
  return !entry.versions.empty() &&
         fs::path(entry.versions.begin()->second.file).parent_path().parent_path() == folder;
}

bool Catalog::Reading::IsUnsettled(const std::string& model, std::int64_t version, const fs::path& path) const {
  if (!options.settled_before) return false;
  const auto known = before.find(model);
  if (known != before.end() && known->second->versions.contains(version)) return false;
  const bool is_unsettled = LastWrite(path) > *options.settled_before;
  if (is_unsettled && unsettled != nullptr) *unsettled = true;
  return is_unsettled;
}

bool Catalog::Reading::IsKnown(const std::string& model, const absl::Status& error) const {
  const auto known = before.find(model);
  return known != before.end() && known->second->error == error;
}

std::shared_ptr<const Catalog::Entry> Catalog::ReadFolder(const std::string& model,
                                                          const fs::path& folder,
                                                          const Reading& reading) {
  const Snapshot& before = reading.before;
  auto entry = std::make_shared<Entry>();
  const auto refuse = [&](absl::Status error) {
    if (!reading.options.settled_before || !reading.IsKnown(model, error)) {
      log::Warning("model cannot be served", {{"model", model}, {"error", FromAbsl(error.message())}});
    }
    entry->versions.clear();
    entry->error = std::move(error);
    return entry;
  };
  if (const absl::Status read = ReadOptions(model, &folder, reading, *entry); !read.ok()) {
    const auto known = before.find(model);
    if (known == before.end() || !IsFrom(folder, *known->second)) return refuse(read);
    if (!reading.options.settled_before || !reading.IsKnown(model, read)) {
      log::Warning("model's configuration is bad; the one before stays in force",
                   {{"model", model}, {"error", FromAbsl(read.message())}});
    }
    *entry = *known->second;
    entry->error = read;
    return entry;
  }
  const ModelOptions options = entry->options == nullptr ? ModelOptions{} : *entry->options;
  absl::StatusOr<bool> waiting = ReadVersions(model, folder, options, reading, *entry);
  if (!waiting.ok()) return refuse(std::move(waiting).status());
  if (entry->versions.empty() && *waiting) return nullptr;
  if (entry->versions.empty() && !entry->left_out.empty()) {
    return refuse(absl::InvalidArgumentError(
        StrCat(options.source, " of '", model, "' leaves out every version that is there; change its 'versions'")));
  }
  if (entry->versions.empty()) {
    return refuse(absl::InvalidArgumentError(StrCat("'", ShortName(folder),
                                                    "' has no version of the model; put it at '",
                                                    ShortName(folder), "/1/",
                                                    ProgramNames(options).front(), "'")));
  }
  return entry;
}

absl::Status Catalog::ReadOptions(const std::string& model, const fs::path* folder, const Reading& reading,
                                  Entry& entry) {
  ModelOptions options;
  bool said = false;
  const TritonConfig* given = reading.Override(model);
  if (folder != nullptr && given == nullptr && reading.read_triton != nullptr) {
    absl::StatusOr<std::string> text = ReadSmallFile(*folder / "config.pbtxt", kMaxTritonConfig);
    if (text.ok()) {
      said = true;
      options.source = "config.pbtxt";
      const TritonConfig config{TritonConfig::Form::kText, *std::move(text), ShortName(*folder / "config.pbtxt")};
      HEARTH_RETURN_IF_ERROR(reading.read_triton(model, config, options, entry.remarks));
    } else if (!absl::IsNotFound(text.status())) {
      return text.status();
    }
  }
  if (folder != nullptr) {
    absl::StatusOr<ModelOptions> read = ReadModelYaml(*folder / "model.yaml", options);
    if (read.ok()) {
      options = *std::move(read);
      options.source = said ? "model.yaml or config.pbtxt" : "model.yaml";
      said = true;
    } else if (!absl::IsNotFound(read.status())) {
      return read.status();
    }
  }
  if (given != nullptr) {
    options.source = given->source;
    HEARTH_RETURN_IF_ERROR(reading.read_triton(model, *given, options, entry.remarks));
    entry.override_stamp = absl::HashOf(given->text);
    said = true;
  }
  HEARTH_RETURN_IF_ERROR(CheckOptions(options));
  if (folder != nullptr) HEARTH_RETURN_IF_ERROR(ReadAllClassNames(*folder, options));
  if (said) entry.options = std::make_shared<const ModelOptions>(std::move(options));
  const auto known = reading.before.find(model);
  if (known != reading.before.end() && known->second->remarks == entry.remarks) return absl::OkStatus();
  for (const std::string& remark : entry.remarks) {
    log::Warning("not all of a model's Triton configuration has an effect", {{"model", model}, {"remark", remark}});
  }
  return absl::OkStatus();
}

// The highest first, since a policy may want the latest of those that have a program.
absl::StatusOr<bool> Catalog::ReadVersions(const std::string& model, const fs::path& folder,
                                           const ModelOptions& options, const Reading& reading, Entry& entry) {
  HEARTH_ASSIGN_OR_RETURN(const std::vector<std::string> names, Names(folder));
  std::vector<std::int64_t> numbers;
  for (const std::string& name : names) {
    const std::optional<std::int64_t> version = ParseVersionFolder(name);
    if (version && TypeOf(folder / name) == fs::file_type::directory) numbers.push_back(*version);
  }
  std::sort(numbers.rbegin(), numbers.rend());
  const VersionPolicy& policy = options.versions;
  bool waiting = false;
  for (const std::int64_t version : numbers) {
    const bool enough = policy.latest > 0 && entry.versions.size() == static_cast<std::size_t>(policy.latest);
    const bool other = !policy.specific.empty() &&
                       std::find(policy.specific.begin(), policy.specific.end(), version) == policy.specific.end();
    if (enough || other) {
      entry.left_out.push_back(version);
      continue;
    }
    const fs::path path = folder / std::to_string(version);
    if (reading.IsUnsettled(model, version, path)) {
      waiting = true;
      continue;
    }
    absl::StatusOr<VersionFiles> files = FindVersion(path, options);
    if (absl::IsNotFound(files.status())) {
      Remark(reading.options.oddities, "version without a program is ignored",
             {{"model", model}, {"version", version}, {"reason", FromAbsl(files.status().message())}});
      continue;
    }
    HEARTH_RETURN_IF_ERROR(files.status());
    entry.versions.emplace(version, Version{files->program.string(), Texts(files->weights)});
  }
  for (const auto& [label, version] : options.labels) {
    if (entry.versions.contains(version)) continue;
    Remark(reading.options.oddities, "label of a version that is not served",
           {{"model", model}, {"label", label}, {"version", version}});
  }
  return waiting;
}

std::shared_ptr<const Catalog::Entry> Catalog::BareFile(const std::string& model, const fs::path& file,
                                                        const Reading& reading) {
  auto entry = std::make_shared<Entry>();
  entry->error = ReadOptions(model, nullptr, reading, *entry);
  if (entry->error.ok()) entry->versions.emplace(1, Version{file.string()});
  return entry;
}

absl::Status Catalog::ScanRoot(const fs::path& root, const Reading& reading, Snapshot& found) {
  const log::Level oddities = reading.options.oddities;
  HEARTH_ASSIGN_OR_RETURN(const std::vector<std::string> names, Names(root));
  Snapshot here;
  std::vector<fs::file_type> types;  // of a hundred thousand files, each look counts
  for (const std::string& name : names) types.push_back(TypeOf(root / name));
  const auto add = [&](const std::string& model, const std::string& name, const auto& read) {
    const fs::path path = root / name;
    if (!IsModelName(model)) {
      Remark(oddities, "a name that is not fit for a model is ignored", {{"path", path.string()}});
    } else if (here.contains(model)) {
      Remark(oddities, "model is there twice; this one is ignored", {{"model", model}, {"path", path.string()}});
    } else if (std::shared_ptr<const Entry> entry = read(path)) {
      here.emplace(model, std::move(entry));
    }
  };
  for (std::size_t i = 0; i < names.size(); ++i) {
    if (types[i] != fs::file_type::directory) continue;
    add(names[i], names[i], [&](const fs::path& folder) { return ReadFolder(names[i], folder, reading); });
  }
  for (const std::string_view extension : kExtensions) {
    for (std::size_t i = 0; i < names.size(); ++i) {
      const std::optional<std::string> model = BareModelName(names[i]);
      if (!model || !names[i].ends_with(extension) || types[i] != fs::file_type::regular) continue;
      if (reading.IsUnsettled(*model, 1, root / names[i])) continue;
      add(*model, names[i], [&](const fs::path& file) { return BareFile(*model, file, reading); });
    }
  }
  for (auto& [model, entry] : here) {
    if (!found.try_emplace(model, std::move(entry)).second) {
      Remark(oddities, "model is in an earlier root too; this one is ignored",
             {{"model", model}, {"root", root.string()}});
    }
  }
  return absl::OkStatus();
}

absl::Status Catalog::Scan(const ScanOptions& options) {
  MutexLock lock(scan_mu_);
  const std::shared_ptr<const Snapshot> before = snapshot();
  const Overrides given = overrides();
  Snapshot found;
  bool unsettled = false;
  for (const fs::path& root : roots_) {
    HEARTH_RETURN_IF_ERROR(
        Annotate(ScanRoot(root, {*before, options, read_triton_, given, &unsettled}, found), "model repository"));
  }
  has_unsettled_.store(unsettled, std::memory_order_relaxed);
  Publish(std::move(found));
  return absl::OkStatus();
}

absl::Status Catalog::Rescan(std::string_view model) {
  if (!IsModelName(model)) return absl::NotFoundError(Unknown(model));
  MutexLock lock(scan_mu_);
  return RescanLocked(std::string(model), overrides());
}

absl::Status Catalog::RescanWith(std::string_view model, std::shared_ptr<const TritonConfig> config) {
  if (!IsModelName(model)) return absl::NotFoundError(Unknown(model));
  if (config != nullptr && read_triton_ == nullptr) return absl::UnimplementedError("nothing reads Triton's configuration");
  const std::string name(model);
  MutexLock lock(scan_mu_);
  Overrides next = overrides();
  if (config == nullptr) {
    next.erase(name);
  } else {
    next[name] = config;
  }
  HEARTH_RETURN_IF_ERROR(RescanLocked(name, next));
  MutexLock now(mu_);
  if (!snapshot_->contains(name) || config == nullptr) {
    overrides_.erase(name);
  } else {
    overrides_[name] = std::move(config);
  }
  return absl::OkStatus();
}

absl::Status Catalog::RescanLocked(const std::string& name, const Overrides& overrides) {
  Snapshot next = *snapshot();
  const ScanOptions options;
  const Reading reading{next, options, read_triton_, overrides};
  std::shared_ptr<const Entry> entry;
  for (const fs::path& root : roots_) {
    if (std::error_code error; !fs::is_directory(root, error)) {
      if (!error) error = std::make_error_code(std::errc::not_a_directory);
      return Annotate(PathError(error, root), "model repository");
    }
    if (TypeOf(root / name) == fs::file_type::directory) {
      entry = ReadFolder(name, root / name, reading);
    }
    for (const std::string_view extension : kExtensions) {
      const fs::path file = root / StrCat(name, extension);
      if (!entry && TypeOf(file) == fs::file_type::regular) entry = BareFile(name, file, reading);
    }
    if (entry) break;
  }
  if (entry) {
    // Another one than the one in force that cannot be understood changes nothing.
    if (const TritonConfig* given = reading.Override(name); given != nullptr && given != Override(name).get()) {
      if (!entry->error.ok()) return absl::InvalidArgumentError(entry->error.message());
    }
    next[name] = std::move(entry);
    Publish(std::move(next));
    return absl::OkStatus();
  }
  next.erase(name);
  Publish(std::move(next));
  return absl::NotFoundError(Unknown(name));
}

absl::StatusOr<ModelId> Catalog::Resolve(std::string_view model,
                                         std::optional<std::int64_t> version) const {
  const std::shared_ptr<const Snapshot> now = snapshot();
  const auto found = now->find(model);
  if (found == now->end()) return absl::NotFoundError(Unknown(model));
  const Entry& entry = *found->second;
  if (entry.versions.empty()) return entry.error;
  if (!version && IsUnloaded(model)) {
    return absl::NotFoundError(StrCat("Request for unknown model: '", model, "' has no available versions: it was unloaded; "
                                      "load it explicitly"));
  }
  const auto at = version ? entry.versions.find(*version) : std::prev(entry.versions.end());
  if (at == entry.versions.end()) {
    return NotFound(model, *version, entry.left_out, entry.options.get());
  }
  return CheckLoaded(model, at->first);
}

absl::StatusOr<ModelId> Catalog::CheckLoaded(std::string_view model, std::int64_t version) const {
  if (IsUnloaded(model)) {
    return absl::UnavailableError(StrCat("Request for unknown model: '", model, "' version ",
                                         version, " is not at ready state: it was unloaded; load it explicitly"));
  }
  return ModelId{std::string(model), version};
}

absl::StatusOr<ModelId> Catalog::ResolveLabel(std::string_view model, std::string_view label) const {
  const std::shared_ptr<const Snapshot> now = snapshot();
  const auto found = now->find(model);
  if (found == now->end()) return absl::NotFoundError(Unknown(model));
  const Entry& entry = *found->second;
  if (entry.versions.empty()) return entry.error;
  const auto version = LabelIn(entry.options.get(), label);
  if (!version) return absl::NotFoundError(StrCat("Request for unknown model: '", model, "' has no label '", label, "'"));
  if (!entry.versions.contains(*version)) {
    return Annotate(NotFound(model, *version, entry.left_out, entry.options.get()), StrCat("label '", label, "'"));
  }
  return CheckLoaded(model, *version);
}

std::map<std::string, std::int64_t> Catalog::Labels(std::string_view model) const {
  const std::shared_ptr<const Snapshot> now = snapshot();
  const auto found = now->find(model);
  if (found == now->end() || found->second->options == nullptr) return {};
  return found->second->options->labels;
}

bool Catalog::IsResourcePreserving(std::string_view model) const {
  const std::shared_ptr<const Snapshot> now = snapshot();
  const auto found = now->find(model);
  return found != now->end() && found->second->options != nullptr && found->second->options->resource_preserving;
}

absl::StatusOr<ModelSpec> Catalog::Spec(const ModelId& id) const {
  absl::StatusOr<ModelSpec> spec = Listed(id);
  if (spec.ok()) spec->revision += RevisionOf(*spec);
  return spec;
}

absl::StatusOr<ModelSpec> Catalog::Listed(const ModelId& id) const {
  const std::shared_ptr<const Snapshot> now = snapshot();
  const auto found = now->find(id.name);
  if (found == now->end()) return absl::NotFoundError(Unknown(id.name));
  if (found->second->versions.empty()) return found->second->error;
  const auto at = found->second->versions.find(id.version);
  if (at == found->second->versions.end()) {
    return NotFound(id.name, id.version, found->second->left_out, found->second->options.get());
  }
  const Version& version = at->second;
  const std::shared_ptr<const ModelOptions>& options = found->second->options;
  return ModelSpec{id, FormatOf(version.file), version.file, options == nullptr ? ModelOptions{} : *options,
                   {version.weights.begin(), version.weights.end()}, found->second->override_stamp};
}

std::shared_ptr<const ModelOptions> Catalog::Options(std::string_view model) const {
  const std::shared_ptr<const Snapshot> now = snapshot();
  const auto found = now->find(model);
  return found == now->end() ? nullptr : found->second->options;
}

absl::Status Catalog::Fault(std::string_view model) const {
  const std::shared_ptr<const Snapshot> now = snapshot();
  const auto found = now->find(model);
  return found == now->end() ? absl::NotFoundError(Unknown(model)) : found->second->error;
}

void Catalog::SetUnloaded(std::string_view model, bool unloaded) {
  MutexLock lock(mu_);
  const auto listed = snapshot_->find(model);
  if (listed == snapshot_->end()) return;
  if (unloaded) {
    unloaded_.insert(listed->first);
    if (const auto given = overrides_.find(model); given != overrides_.end()) overrides_.erase(given);
  } else {
    unloaded_.erase(listed->first);
  }
}

bool Catalog::IsUnloaded(std::string_view model) const {
  MutexLock lock(mu_);
  return unloaded_.contains(model);
}

std::vector<Catalog::Row> Catalog::List() const {
  const std::shared_ptr<const Snapshot> now = snapshot();
  std::vector<Row> rows;
  rows.reserve(now->size());
  for (const auto& [model, entry] : *now) {
    Row& row = rows.emplace_back();
    row.model = model;
    for (const auto& [version, spec] : entry->versions) row.versions.push_back(version);
    row.error = entry->error;
    row.unloaded = IsUnloaded(model);
  }
  return rows;
}

std::vector<std::int64_t> Catalog::Versions(std::string_view model) const {
  const std::shared_ptr<const Snapshot> now = snapshot();
  std::vector<std::int64_t> versions;
  const auto found = now->find(model);
  if (found == now->end()) return versions;
  for (const auto& [version, spec] : found->second->versions) versions.push_back(version);
  return versions;
}

}  // namespace hearth
