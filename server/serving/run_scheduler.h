// Which model's requests run next on the compute threads that all models share.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "server/base/clock.h"
#include "server/base/executor.h"
#include "server/base/mutex.h"
#include "server/base/timer.h"
#include "server/model/signature.h"
#include "server/serving/run_queue.h"

namespace hearth {

// Fair between models: of those that have something to run, the one goes first that has had the least of the processors'
// time (start-time fair queueing over measured time; one that was away does not save up). So a model with much to do, or
// that takes long, takes turns with the others, however many of its requests wait. What runs is decided when a thread is
// free, not when a request comes, which is also when a batch is made.
//
// A run takes as many processors as its model has threads in an operator, and of all together no more are taken than
// there are for computing: as many as its executor's threads would take with Deps::threads each. So runs of a model with
// more threads are fewer, each of them counts for as many times its time, and one whose turn it is and who does not fit
// waits for those that run. Meanwhile only those begin who will be through by then, going by what runs of their models have
// taken; nobody once that was wrong, or there would always be somebody.
//
// Runs cannot be interrupted. While nobody can begin before one of a model has ended that takes long (over 20 ms, or
// nobody knows yet), requests of a model that is known to be quick are given a thread more, the reserve: the machine is
// shared by one run too many for as long, and nobody waits for a model that takes a second. So is the first run of a model
// of which nobody knows, after those. One that turns out to be slow there is replaced, as far as the executor allows.
//
// Requests that come too late or are cancelled are refused while they wait, within 20 ms.
//
// Thread-safe. Outlived by its Deps. REQUIRES, when destroyed: nothing runs, and nothing will; what waits is destroyed.
class RunScheduler {
 public:
  // A run that takes far longer than others of its model did (ten times their average, and a second at least).
  struct Overdue {
    ModelId model;
    Duration so_far;
    Duration typical;
    bool ended = false;  // at last
  };

  struct Deps {
    Executor& compute;
    Timer& timer;
    const Clock& clock;
    Executor* reserve = nullptr;                          // one thread, and its replacements; null: no reserve
    // Told of a run that is, once on the timer's thread, and once more when it has ended, on the thread that it ran on.
    std::function<void(const Overdue&)> overdue = nullptr;
    int threads = 1;                                      // of a run whose policy does not say
  };

  // One model's queue. Its members are the scheduler's. REQUIRES, when destroyed: nothing waits or runs; after the scheduler.
  class Lane {
   public:
    explicit Lane(ModelId model) : model_(std::move(model)) {}
    ~Lane();
    Lane(const Lane&) = delete;
    Lane& operator=(const Lane&) = delete;

   private:
    friend class RunScheduler;
    bool HasRoom() const { return queue_.policy().limit == 0 || running_ < queue_.policy().limit; }
    bool IsQuick() const;  // known to be
    bool IsUnknown() const { return typical_ < 0; }

    const ModelId model_;
    RunQueue queue_;
    int threads_ = 0;  // RunPolicy's
    int running_ = 0;
    double had_ = 0;         // seconds of the processors' time, in the scheduler's reckoning
    double typical_ = -1;    // seconds of a run, moving average; negative: none has ended yet
    std::size_t ready_ = 0;  // of its runs, those that may begin now
    bool listed_ = false;    // in State::waiting
  };

  explicit RunScheduler(Deps deps);
  ~RunScheduler();

  // Runs it later, on the executor; never inline. Refuses it inline if too many wait in its queue: UNAVAILABLE.
  void Post(Lane& lane, RunJob::Ptr job);

  // From now on. Those that run already are not stopped.
  void SetPolicy(Lane& lane, const RunPolicy& policy);

  // Batches wait for nobody any more: no more requests will come.
  void Hurry();

  // Until SetPolicy(): it turned out that it cannot be.
  void StopBatching(Lane& lane);

  // Those that runs share.
  int processors() const;

  struct Counts {
    std::vector<std::pair<ModelId, std::size_t>> waiting;  // of those that have any
    std::size_t running = 0;
    std::size_t overdue = 0;  // of those that run
  };
  Counts counts() const;

 private:
  friend class RunSlot;
  struct State;
  class Ticket;
  class ReserveTicket;
  struct Posts;

  void Finished(std::uint64_t run);

  const std::shared_ptr<State> state_;  // tickets may be left when nothing runs any more
};

}  // namespace hearth
