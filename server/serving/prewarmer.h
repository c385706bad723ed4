// Models that are asked for by a timetable, loaded again before the next time.
#pragma once

#include <functional>
#include <memory>

#include "server/base/clock.h"
#include "server/base/timer.h"
#include "server/residency/model_manager.h"

namespace hearth {

// Hears from the journal who leaves, and sets an alarm for each model that is expected back (ModelManager::ExpectedUse).
// When it rings the model is loaded in the background, which takes only room that nobody wants, unless it is here by
// then. Once for each use that is expected: from then on one that does not come is waited for no longer than other models
// are kept.
//
// Knows of 4096 models at most that will come; of more, those that come last are left to their requests. Thread-safe.
class Prewarmer {
 public:
  struct Deps {
    ModelManager& manager;
    Timer& timer;
    const Clock& clock;
    std::function<bool(const ModelId&)> is_served;  // who does not may not be loaded; opens no file
  };
  // Off at first. ModelManager::Options::prewarm says whether anything is foreseen.
  explicit Prewarmer(Deps deps);
  ~Prewarmer();  // SetEnabled(false)

  void SetEnabled(bool enabled);

 private:
  class State;
  const std::shared_ptr<State> state_;  // shared with the timer's tasks, which may outlive us
};

}  // namespace hearth
