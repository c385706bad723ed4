#include "server/serving/repository_service.h"

#include <algorithm>
#include <memory>
#include <optional>
#include <set>
#include <utility>

#include "absl/strings/cord.h"
#include "server/base/duration.h"
#include "server/base/log.h"
#include "server/base/server_exiting.h"
#include "server/serving/infer_service.h"

namespace hearth {
namespace {

// What the load's own status means to the one who asked for it: Triton calls every fault of the
// model INVALID_ARGUMENT. What asking again, or making room, can mend keeps its code.
absl::Status LoadFailure(const ModelId& id, const absl::Status& why) {
  const absl::Status told = Annotate(why, StrCat("load failed for model '", id.name, "': version ",
                                                 id.version, " is at UNAVAILABLE state"));
  switch (why.code()) {
    case absl::StatusCode::kResourceExhausted:
    case absl::StatusCode::kFailedPrecondition:
    case absl::StatusCode::kDeadlineExceeded:
    case absl::StatusCode::kUnavailable:
    case absl::StatusCode::kCancelled:
      return told;
    default: {
      absl::Status invalid(absl::StatusCode::kInvalidArgument, told.message());
      told.ForEachPayload([&](absl::string_view type, const absl::Cord& payload) {
        invalid.SetPayload(type, payload);
      });
      return invalid;
    }
  }
}

// An answer that is owed. Dropped unanswered, as an executor does that stops, it says so.
class LoadDuty {
 public:
  explicit LoadDuty(RepositoryService::LoadCallback done) : done_(std::move(done)) {}
  LoadDuty(LoadDuty&& other) noexcept : done_(std::exchange(other.done_, nullptr)) {}
  LoadDuty& operator=(LoadDuty&&) = delete;
  ~LoadDuty() {
    if (done_) std::move(done_)(ServerExiting());
  }
  RepositoryService::LoadCallback Take() { return std::exchange(done_, nullptr); }

 private:
  RepositoryService::LoadCallback done_;
};

// Several generations of a version may be there at once: the one that a client should hear of.
int Rank(ModelState state) {
  switch (state) {
    case ModelState::kReady:
      return 4;
    case ModelState::kQueued:
    case ModelState::kLoading:
      return 3;
    case ModelState::kFailed:
      return 2;
    case ModelState::kDraining:
    case ModelState::kUnloading:
      return 1;
    case ModelState::kAbsent:
      return 0;
  }
  return 0;
}

void SetState(const ModelCache::Row& row, IndexRow& index) {
  switch (row.state) {
    case ModelState::kReady:
      index.state = "READY";
      break;
    case ModelState::kQueued:
    case ModelState::kLoading:
      index.state = "LOADING";
      index.reason = std::string(FromAbsl(row.error.message()));
      break;
    case ModelState::kDraining:
    case ModelState::kUnloading:
      index.state = "UNLOADING";
      break;
    case ModelState::kFailed:
      index.state = "UNAVAILABLE";
      index.reason = std::string(FromAbsl(row.error.message()));
      break;
    case ModelState::kAbsent:
      break;
  }
}

}  // namespace

RepositoryService::RepositoryService(Deps deps) : deps_(deps) {}

bool RepositoryService::live() const {
  if (deps_.heartbeats == nullptr) return true;
  const std::vector<Heartbeats::Silence> stopped = deps_.heartbeats->stopped();
  for (const Heartbeats::Silence& part : stopped) {
    log::Error("not live: a part has stopped", {{"part", part.name}, {"since", RoughDuration(part.since)}});
  }
  return stopped.empty();
}

std::string RepositoryService::why_not_ready() const {
  MutexLock lock(mu_);
  return why_not_ready_;
}

void RepositoryService::SetWhyNotReady(std::string why) {
  MutexLock lock(mu_);
  why_not_ready_ = std::move(why);
}

absl::StatusOr<ModelId> RepositoryService::Resolve(const std::string& model,
                                                   const std::string& version) const {
  return deps_.versions.Resolve(model, version);
}

bool RepositoryService::ModelReady(const std::string& model, const std::string& version) const {
  const auto id = Resolve(model, version);
  if (!id.ok()) return false;
  return deps_.manager.Peek(*id) || (deps_.loadable_is_ready && !deps_.manager.IsRefused(*id));
}

ModelMetadata RepositoryService::Describe(const ModelHandle& handle) const {
  const Footprint& footprint = handle->footprint();
  ModelMetadata metadata;
  metadata.id = handle.id();
  metadata.versions = deps_.catalog.Versions(handle.id().name);
  metadata.signature = handle->signature();
  metadata.stateful = handle->stateful();
  if (const absl::StatusOr<ModelSpec> spec = deps_.catalog.Listed(handle.id()); spec.ok()) {
    metadata.options = spec->options;
    metadata.file = spec->file.filename().string();
  }
  metadata.properties = {
      {"hearth_residency", "resident"},
      {"hearth_device_bytes", std::to_string(footprint.device_bytes)},
      {"hearth_host_bytes", std::to_string(footprint.host_bytes)},
      {"hearth_mapped_bytes", std::to_string(footprint.mapped_bytes())},
      {"hearth_load_ms", StrCat(ToMilliseconds(handle->load_report().total()))},
  };
  if (footprint.device_bytes > 0) {
    metadata.properties.emplace("hearth_device", NameOf(footprint.device, deps_.manager.devices()));
  }
  std::string labels;
  for (const auto& [label, version] : deps_.catalog.Labels(handle.id().name)) {
    labels += StrCat(labels.empty() ? "" : ",", label, "=", version);
  }
  if (!labels.empty()) metadata.properties.emplace("hearth_labels", std::move(labels));
  return metadata;
}

// An explicit load ignores the back-off after a failure; one for metadata must not, or a client
// that polls would make a broken model load again and again.
absl::Status RepositoryService::CheckNotBackingOff(const ModelId& id) const {
  for (const ModelCache::Row& row : deps_.manager.Snapshot()) {
    const Duration left = row.retry_at - deps_.clock.Now();
    if (row.id == id && row.state == ModelState::kFailed && left > Duration::zero()) {
      const absl::StatusOr<ModelSpec> spec = deps_.catalog.Spec(id);
      if (spec.ok() && spec->revision != row.revision) continue;  // what failed is not what is there
      return WithRetryAfter(row.error, std::chrono::ceil<std::chrono::milliseconds>(left));
    }
  }
  return absl::OkStatus();
}

void RepositoryService::Metadata(const std::string& model, const std::string& version,
                                 Deadline deadline, MetadataCallback done) {
  absl::StatusOr<ModelId> id = Resolve(model, version);
  if (!id.ok()) return std::move(done)(std::move(id).status());
  if (const ModelHandle handle = deps_.manager.Peek(*id)) return std::move(done)(Describe(handle));
  if (absl::Status status = CheckNotBackingOff(*id); !status.ok()) return std::move(done)(status);
  deps_.manager.Load(
      *id, {}, deadline,
      [this, id = *id, done = std::move(done)](absl::StatusOr<LoadReport> loaded) mutable {
        if (!loaded.ok()) return std::move(done)(std::move(loaded).status());
        // Still pinned for this callback; gone only if somebody unloads it right now.
        if (const ModelHandle handle = deps_.manager.Peek(id)) {
          return std::move(done)(Describe(handle));
        }
        std::move(done)(absl::UnavailableError(
            StrCat("model '", id.name, "' version ", id.version, " was unloaded meanwhile")));
      });
}

ModelUse RepositoryService::UseOf(const ModelId& id) const {
  const ModelHandle handle = deps_.manager.Peek(id);
  if (!handle) return {.id = id};
  const Footprint& footprint = handle->footprint();
  return {id, footprint.device_bytes, footprint.device, footprint.host_bytes + footprint.mapped_bytes()};
}

absl::StatusOr<std::vector<ModelUse>> RepositoryService::Uses(const std::string& model,
                                                              const std::string& version) const {
  std::vector<ModelUse> uses;
  if (model.empty()) {
    for (const ModelCache::Row& row : deps_.manager.Snapshot()) {
      if (row.state == ModelState::kReady) uses.push_back(UseOf(row.id));
    }
    return uses;
  }
  // One that was unloaded keeps its own.
  for (const std::int64_t number : deps_.catalog.Versions(model)) {
    if (version.empty() || version == std::to_string(number)) uses.push_back(UseOf({model, number}));
  }
  if (uses.empty()) {
    const absl::StatusOr<ModelId> labelled = Resolve(model, version);
    if (labelled.ok()) uses.push_back(UseOf(*labelled));
  }
  if (!uses.empty()) return uses;
  return absl::InvalidArgumentError(StrCat("requested model '", model, "'",
                                           version.empty() ? "" : StrCat(" version ", version), " is not available"));
}

std::vector<IndexRow> RepositoryService::Index(bool ready_only) const {
  std::map<ModelId, ModelCache::Row> states;
  for (ModelCache::Row& row : deps_.manager.Snapshot()) {
    const auto [at, added] = states.try_emplace(row.id, row);
    if (!added && Rank(row.state) > Rank(at->second.state)) at->second = std::move(row);
  }
  std::vector<IndexRow> index;
  for (const Catalog::Row& model : deps_.catalog.List()) {
    if (model.versions.empty()) {
      index.push_back(
          {model.model, "", "UNAVAILABLE", std::string(FromAbsl(model.error.message()))});
    }
    for (const std::int64_t version : model.versions) {
      IndexRow& row = index.emplace_back();
      row.model = model.model;
      row.version = std::to_string(version);
      const auto state = states.find({model.model, version});
      if (state != states.end()) {
        SetState(state->second, row);
      } else if (model.unloaded) {
        row.state = "UNAVAILABLE";
        row.reason = "unloaded";
      } else {
        row.reason = "not resident; loads on the first request";
      }
      if (!model.error.ok()) {
        row.reason += StrCat(row.reason.empty() ? "" : "; ",
                             "served as before its configuration was changed: ",
                             FromAbsl(model.error.message()));
      }
    }
  }
  if (ready_only) std::erase_if(index, [](const IndexRow& row) { return row.state != "READY"; });
  return index;
}

absl::StatusOr<ModelId> RepositoryService::PrepareLoad(const std::string& model, const ConfigPtr& config) {
  if (model.empty()) return absl::InvalidArgumentError("Model name cannot be empty");
  if (model.find('/') != model.npos || model.find('\\') != model.npos || model == "..") {
    return absl::InvalidArgumentError(
        StrCat("Model name '", model, "' must not contain path traversal characters"));
  }
  const auto bad = [&](const absl::Status& why) {
    return absl::InvalidArgumentError(
        StrCat("failed to load '", model, "', ", FromAbsl(why.message())));
  };
  const absl::Status scanned = deps_.catalog.RescanWith(model, config);
  if (deps_.rescanned) deps_.rescanned();
  deps_.versions.Rescanned();
  if (config != nullptr && absl::IsInvalidArgument(scanned)) return bad(scanned);
  if (!scanned.ok()) {
    const std::string polled =
        StrCat("failed to load '", model, "', failed to poll from model repository");
    return absl::InternalError(
        absl::IsNotFound(scanned) ? polled : StrCat(polled, ": ", FromAbsl(scanned.message())));
  }
  // One that is served as it was before is left alone.
  if (const absl::Status fault = deps_.catalog.Fault(model); !fault.ok()) return bad(fault);
  deps_.catalog.SetUnloaded(model, false);
  absl::StatusOr<ModelId> id = deps_.catalog.Resolve(model, std::nullopt);
  if (!id.ok()) return bad(id.status());
  return id;
}

void RepositoryService::OnExecutor(absl::AnyInvocable<void() &&> task) {
  if (deps_.executor == nullptr) return std::move(task)();
  deps_.executor->Post(std::move(task));
}

void RepositoryService::Load(const std::string& model, ConfigPtr config, Deadline deadline, LoadCallback done) {
  OnExecutor([this, model, config = std::move(config), deadline, duty = LoadDuty(std::move(done))]() mutable {
    LoadNow(model, std::move(config), deadline, duty.Take());
  });
}

// Another load may have put another one in force meanwhile.
void RepositoryService::PutBack(const std::string& model, const ConfigPtr& config, const ConfigPtr& before) {
  if (deps_.catalog.Override(model) != config) return;
  if (!deps_.catalog.RescanWith(model, before).ok()) (void)deps_.catalog.RescanWith(model, nullptr);
}

void RepositoryService::LoadNow(const std::string& model, ConfigPtr config, Deadline deadline, LoadCallback done) {
  const ConfigPtr before = deps_.catalog.Override(model);
  absl::StatusOr<ModelId> id = PrepareLoad(model, config);
  if (!id.ok()) return std::move(done)(std::move(id).status());
  bool reload = false;
  if (const auto spec = deps_.catalog.Spec(*id); spec.ok()) {
    for (const ModelCache::Row& row : deps_.manager.Snapshot()) {
      if (row.id != *id || row.state != ModelState::kReady) continue;
      reload = row.revision != spec->revision;
    }
  }
  deps_.manager.Load(
      *id, {.reload = reload}, deadline,
      [this, id = *id, config = std::move(config), before, done = std::move(done)](absl::StatusOr<LoadReport> loaded) mutable {
        if (loaded.ok()) return std::move(done)(std::move(loaded));
        absl::Status failure = LoadFailure(id, loaded.status());
        // A load that has begun goes on after a deadline, and its model is served as it was asked for.
        if (config == nullptr || absl::IsDeadlineExceeded(failure) || absl::IsCancelled(failure)) {
          return std::move(done)(std::move(failure));
        }
        OnExecutor([this, id, config = std::move(config), before, failure = std::move(failure),
                    duty = LoadDuty(std::move(done))]() mutable {
          PutBack(id.name, config, before);
          duty.Take()(std::move(failure));
        });
      });
}

void RepositoryService::Unload(const std::string& model,
                               absl::AnyInvocable<void(absl::Status) &&> done) {
  // Also versions that are resident and no longer in the repository.
  std::set<ModelId> ids;
  for (const std::int64_t version : deps_.catalog.Versions(model)) ids.insert({model, version});
  for (const ModelCache::Row& row : deps_.manager.Snapshot()) {
    if (row.id.name == model) ids.insert(row.id);
  }
  for (const RestRow& row : deps_.manager.Rests()) {
    if (row.id.name == model) ids.insert(row.id);
  }
  if (const auto known = deps_.catalog.Resolve(model, std::nullopt);
      ids.empty() && absl::IsNotFound(known.status())) {
    return std::move(done)(known.status());
  }
  deps_.catalog.SetUnloaded(model, true);
  deps_.versions.Forget(model);
  const auto all_gone = std::make_shared<Completion>(
      [&manager = deps_.manager, ids, done = std::move(done)]() mutable {
        absl::Status freed;
        for (const ModelId& id : ids) freed.Update(manager.CheckFreed(id));
        std::move(done)(freed);
      });
  for (const ModelId& id : ids) deps_.manager.Unload(id, [all_gone] {});
}

}  // namespace hearth
