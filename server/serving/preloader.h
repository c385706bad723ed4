// The models of the configuration's `models:` list, loaded before anybody asks.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "server/base/clock.h"
#include "server/base/mutex.h"
#include "server/base/timer.h"
#include "server/residency/model_manager.h"
#include "server/storage/catalog.h"

namespace hearth {

struct PreloadItem {
  std::string model;
  std::optional<std::int64_t> version;  // none: the highest
  bool required = true;
  bool pin = false;
};

// Pins what the list pins, for as long as it says so, and starts the loads in the order of the
// list. What has been loaded once counts as there for good, so that an eviction does not make the
// server unready. A required model that fails is tried again, with a
// back-off and a fresh look at its files, until it is there: the daemon stays up and not ready, so that
// whoever put the wrong file there can put the right one. An optional one is left to its first request. Unless it is
// pinned, it is loaded in the background: where there is room, or where only models leave that nobody wants.
//
// Thread-safe.
class Preloader {
 public:
  struct Deps {
    Catalog& catalog;
    ModelManager& manager;
    Timer& timer;
    const Clock& clock;
    Executor* executor = nullptr;  // where files are looked at again, for a disk may not answer; null: the timer's thread
  };
  struct Options {
    Duration backoff = std::chrono::seconds(5);      // doubles up to max_backoff
    Duration max_backoff = std::chrono::minutes(2);
  };

  // `on_change` runs, on any thread and never under a lock, when all_required_ready() may have changed.
  Preloader(Deps deps, Options options, std::function<void()> on_change);
  ~Preloader();  // Stop()

  // Replaces the list. Items that are new or newly pinned are loaded; what left the list stays
  // resident until it has to make room.
  void Apply(std::vector<PreloadItem> items);
  // For failures from now on.
  void SetOptions(Options options);
  // A pin without a version is the highest one's: to be called when there may be a higher one.
  void RenewPins();
  // No load is started any more. Idempotent.
  void Stop();

  bool all_required_ready() const;
  std::vector<std::string> waiting_for() const;  // required models that have never been loaded yet

 private:
  struct State;
  static void Pin(State& state);
  static void Start(const std::shared_ptr<State>& state, std::size_t generation, std::size_t index);
  static void Loaded(const std::shared_ptr<State>& state, std::size_t generation, std::size_t index,
                     const absl::Status& status);

  const std::shared_ptr<State> state_;  // shared with loads under way, which may outlive us
};

}  // namespace hearth
