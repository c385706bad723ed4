// Looks at the repository again and again, or when it is told, and makes what is resident follow it.
#pragma once

#include <functional>
#include <memory>

#include "server/base/clock.h"
#include "server/base/executor.h"
#include "server/base/timer.h"
#include "server/residency/model_manager.h"
#include "server/storage/catalog.h"

namespace hearth {

// At each look: new models and versions are served from now on, a version that is the highest now to requests that
// name none. A resident model whose files are others than those it was loaded from is loaded anew in the background,
// and once for each content: one that is bad leaves the old one in service. One that is gone is unloaded when its
// requests are done.
//
// What is still being written has to wait: a new version until nothing in it was written within the last interval, a
// changed one until two looks have found the same. Whoever renames into place what was written elsewhere is sure.
// A look that was told of counts half a second for an interval; while something has to wait it is followed by others, at
// first half a second apart, then longer.
//
// Thread-safe.
class RepositoryPoller {
 public:
  struct Deps {
    Catalog& catalog;
    ModelManager& manager;
    Timer& timer;
    const Clock& clock;
    Executor& executor;               // where it looks; runs one task at a time
    std::function<void()> rescanned;  // the catalog may know other versions than before
    std::function<bool(const ModelId&)> goes_on = {};  // one that is gone answers until another version is ready
  };
  explicit RepositoryPoller(Deps deps);
  ~RepositoryPoller();  // SetInterval(0)

  // From now on; 0: never. A look that is under way goes on.
  void SetInterval(Duration interval);
  // Something was written: looks now, whatever the interval.
  void Changed();

  static constexpr Duration kSettle = std::chrono::milliseconds(500);

 private:
  struct State;
  static void SetAlarm(const std::shared_ptr<State>& state);
  static void LookNow(const std::shared_ptr<State>& state);
  static void LookAgain(const std::shared_ptr<State>& state);
  static void Look(State& state, Duration interval);
  static void Follow(State& state, const ModelCache::Row& row);

  const std::shared_ptr<State> state_;  // shared with what is posted, which may outlive us
};

}  // namespace hearth
