#include "server/serving/version_routes.h"

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <map>
#include <optional>
#include <utility>
#include <vector>

#include "server/base/log.h"
#include "server/base/mutex.h"
#include "server/serving/infer_service.h"
#include "server/storage/model_yaml.h"

namespace hearth {
namespace {

// A label, or the empty one of requests without a version.
using Key = std::pair<std::string, std::string>;  // model, label

struct Route {
  std::int64_t from = 0;  // answers until
  std::int64_t to = 0;    // is resident
  bool loading = false;
  std::string told = {};  // why it is not, as it stands in the log
};

absl::Status WithLabels(absl::Status error, const std::map<std::string, std::int64_t>& labels) {
  if (labels.empty()) return error;
  std::string names;
  for (const auto& [label, version] : labels) names += StrCat(names.empty() ? "" : ", ", label);
  return absl::Status(error.code(), StrCat(FromAbsl(error.message()), ", or one of the model's labels: ", names));
}

}  // namespace

struct VersionRoutes::State : std::enable_shared_from_this<VersionRoutes::State> {
  explicit State(Deps d) : deps(d) {}

  void Rescanned() ABSL_LOCKS_EXCLUDED(mu);
  std::optional<Route> Find(const Key& key) const ABSL_LOCKS_EXCLUDED(mu);
  // Where nothing has changed since; true: it did so.
  bool Erase(const Key& key, const Route& route) ABSL_LOCKS_EXCLUDED(mu);
  void Start(const Key& key, const Route& route);
  void Load(const Key& key, const Route& route, LoadPriority priority);
  void Loaded(const Key& key, const Route& route, LoadPriority priority, const absl::Status& status);
  void TakeOver(const Key& key, const Route& route);
  void Swap(const Key& key, const Route& route);
  bool LeavesFirst(const Key& key, const Route& route) const;
  bool IsServed(const std::string& model, std::int64_t version) const;
  bool IsResident(const std::string& model, std::int64_t version) const {
    return static_cast<bool>(deps.manager.Peek({model, version}));
  }
  void Record(const Catalog::Move& move) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu);

  const Deps deps;
  // Whether `routes` may hold something: what a request looks at. Written under mu.
  std::atomic<bool> moving{false};
  // Held over Catalog::TakeMoves, which takes the catalog's lock and calls nobody: whoever sees that there are no moves
  // to take any more, finds them here.
  mutable Mutex mu;
  std::map<Key, Route> routes ABSL_GUARDED_BY(mu);
};

VersionRoutes::VersionRoutes(Deps deps) : state_(std::make_shared<State>(deps)) {}

absl::StatusOr<ModelId> VersionRoutes::Resolve(const std::string& model, const std::string& version) const {
  const Catalog& catalog = state_->deps.catalog;
  const absl::StatusOr<std::optional<std::int64_t>> number = ParseVersion(version);
  if (number.ok() && number->has_value()) return catalog.Resolve(model, *number);
  if (!number.ok() && !IsLabel(version)) return number.status();
  absl::StatusOr<ModelId> id =
      version.empty() ? catalog.Resolve(model, std::nullopt) : catalog.ResolveLabel(model, version);
  if (absl::IsNotFound(id.status()) && !version.empty()) {
    const auto labels = catalog.Labels(model);
    if (!labels.contains(version)) return WithLabels(number.status(), labels);
  }
  // After the look at the catalog: it has the moves before anybody can see what moved.
  if (catalog.has_moves()) state_->Rescanned();
  const bool dangling = absl::IsNotFound(id.status()) && !version.empty();  // a label of what is not there yet
  if (!id.ok() && !dangling) return id;
  if (!state_->moving.load(std::memory_order_acquire)) return id;

  const Key key{model, version};
  const std::optional<Route> route = state_->Find(key);
  if (!route) return id;
  if (id.ok() && id->version != route->to) {  // back to a lower one
    state_->Erase(key, *route);
    return id;
  }
  if (state_->IsResident(model, route->to)) return id;
  if (state_->IsResident(model, route->from)) return ModelId{model, route->from};
  state_->Erase(key, *route);
  return id;
}

void VersionRoutes::Rescanned() { state_->Rescanned(); }

bool VersionRoutes::GoesOn(const ModelId& id) const {
  if (!state_->moving.load(std::memory_order_acquire)) return false;
  if (state_->deps.catalog.Versions(id.name).empty()) return false;  // with the model goes all of it
  MutexLock lock(state_->mu);
  for (const auto& [key, route] : state_->routes) {
    if (key.first == id.name && route.from == id.version) return true;
  }
  return false;
}

void VersionRoutes::Forget(const std::string& model) {
  MutexLock lock(state_->mu);
  std::erase_if(state_->routes, [&](const auto& known) { return known.first.first == model; });
  state_->moving.store(!state_->routes.empty(), std::memory_order_release);
}

void VersionRoutes::State::Rescanned() {
  std::vector<std::pair<Key, Route>> idle;
  {
    MutexLock lock(mu);
    moving.store(true, std::memory_order_release);  // before the catalog says that there is nothing to take
    for (const Catalog::Move& move : deps.catalog.TakeMoves()) Record(move);
    moving.store(!routes.empty(), std::memory_order_release);
    for (auto& [key, route] : routes) {
      if (!std::exchange(route.loading, true)) idle.emplace_back(key, route);
    }
  }
  for (const auto& [key, route] : idle) Start(key, route);
}

void VersionRoutes::State::Record(const Catalog::Move& move) {
  const Key key{move.model, move.label};
  const auto known = routes.find(key);
  // What answers goes on answering, also when what was to take over never came.
  const std::int64_t from = known == routes.end() ? move.from : known->second.from;
  if (known != routes.end()) routes.erase(known);
  if (from != move.to) routes.emplace(key, Route{from, move.to});
}

std::optional<Route> VersionRoutes::State::Find(const Key& key) const {
  MutexLock lock(mu);
  const auto found = routes.find(key);
  if (found == routes.end()) return std::nullopt;
  return found->second;
}

bool VersionRoutes::State::Erase(const Key& key, const Route& route) {
  MutexLock lock(mu);
  const auto found = routes.find(key);
  if (found == routes.end() || found->second.to != route.to || found->second.from != route.from) return false;
  routes.erase(found);
  moving.store(!routes.empty(), std::memory_order_release);
  return true;
}

void VersionRoutes::State::Start(const Key& key, const Route& route) {
  const auto& [model, label] = key;
  if (IsResident(model, route.to)) return TakeOver(key, route);
  if (!IsResident(model, route.from)) {  // nobody to go on with, so the first request will do
    Erase(key, route);
    return;
  }
  if (!IsServed(model, route.to)) {
    deps.manager.Unload({model, route.to}, [] {}, EvictionReason::kReplaced);  // also that it failed
    if (label.empty()) Erase(key, route);  // it was taken away again
    MutexLock lock(mu);
    const auto found = routes.find(key);
    if (found != routes.end() && found->second.to == route.to) found->second.loading = false;
    return;
  }
  Load(key, route, LoadPriority::kBackground);
}

bool VersionRoutes::State::IsServed(const std::string& model, std::int64_t version) const {
  const std::vector<std::int64_t> served = deps.catalog.Versions(model);
  return std::find(served.begin(), served.end(), version) != served.end();
}

// Both do not fit: whether the one before is to leave first.
bool VersionRoutes::State::LeavesFirst(const Key& key, const Route& route) const {
  const auto& [model, label] = key;
  const auto labels = deps.catalog.Labels(model);
  const bool named = std::any_of(labels.begin(), labels.end(),
                                 [&](const auto& known) { return known.second == route.from; });
  return label.empty() && !named && deps.catalog.IsResourcePreserving(model);
}

void VersionRoutes::State::Swap(const Key& key, const Route& route) {
  const std::string& model = key.first;
  if (!Erase(key, route)) return;
  deps.manager.Unload({model, route.from},
                      [&manager = deps.manager, to = ModelId{model, route.to}] {
                        manager.Load(to, {}, kNoDeadline, [](const absl::StatusOr<LoadReport>&) {});
                      },
                      EvictionReason::kReplaced);
}

void VersionRoutes::State::Load(const Key& key, const Route& route, LoadPriority priority) {
  deps.manager.Load({key.first, route.to}, {.priority = priority}, kNoDeadline,
                    [self = shared_from_this(), key, route, priority](absl::StatusOr<LoadReport> report) {
                      self->Loaded(key, route, priority, report.status());
                    });
}

void VersionRoutes::State::Loaded(const Key& key, const Route& route, LoadPriority priority,
                                  const absl::Status& status) {
  if (status.ok()) return TakeOver(key, route);
  // Of two versions of a model the new one is no luxury: it displaces others if it has to.
  if (absl::IsResourceExhausted(status) && priority == LoadPriority::kBackground) {
    return LeavesFirst(key, route) ? Swap(key, route) : Load(key, route, LoadPriority::kNormal);
  }
  std::string reason(FromAbsl(status.message()));
  {
    MutexLock lock(mu);
    const auto found = routes.find(key);
    if (found == routes.end() || found->second.to != route.to) return;
    found->second.loading = false;
    if (std::exchange(found->second.told, reason) == reason) return;  // at every look, for as long as it is so
  }
  log::Warning("the version before goes on, for the other one was not loaded",
               {{"model", key.first},
                {"label", key.second},
                {"version", route.from},
                {"other", route.to},
                {"reason", reason}});
}

void VersionRoutes::State::TakeOver(const Key& key, const Route& route) {
  if (!Erase(key, route)) return;
  const auto& [model, label] = key;
  log::Info("another version answers", {{"model", model}, {"label", label}, {"version", route.to}, {"before", route.from}});
  if (IsServed(model, route.from)) return;
  {
    MutexLock lock(mu);
    for (const auto& [other, still] : routes) {
      if (other.first == model && still.from == route.from) return;
    }
  }
  deps.manager.Unload({model, route.from}, [] {}, EvictionReason::kReplaced);
}

}  // namespace hearth
