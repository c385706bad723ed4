// How many runs of one model may be under way at the same time.
#pragma once

#include <atomic>
#include <deque>
#include <memory>
#include <utility>

#include "server/base/executor.h"
#include "server/base/mutex.h"

namespace hearth {

// Between the requests of one model and the compute threads shared by all models. At most `limit`
// runs are with the executor at once; the others wait here, first come first served, and hold no
// thread. A run that ends sends the next one to the back of the executor's queue, so a model with
// much to do takes turns with the others.
//
// Without a limit (0) runs go straight to the executor, and no lock is taken.
//
// Thread-safe. Must outlive its slots.
class RunQueue {
 public:
  // The right to be running; given back by Release() or the destructor. Null for a model without
  // limit. Move-only. Thread-compatible.
  class Slot {
   public:
    Slot() = default;
    Slot(Slot&& other) noexcept : queue_(std::exchange(other.queue_, nullptr)) {}
    Slot& operator=(Slot&& other) noexcept {
      if (this != &other) {
        Release();
        queue_ = std::exchange(other.queue_, nullptr);
      }
      return *this;
    }
    ~Slot() { Release(); }
    // Lets the next one start.
    void Release() {
      if (queue_ != nullptr) std::exchange(queue_, nullptr)->Finished();
    }

   private:
    friend class RunQueue;
    explicit Slot(RunQueue* queue) : queue_(queue) {}

    RunQueue* queue_ = nullptr;
  };

  // One run. Destroyed without Run() when the executor shuts down first: whoever owes somebody an
  // answer gives it from the destructor, and lets go of the slot before it does.
  class Runnable {
   public:
    virtual ~Runnable() = default;
    virtual void Run(std::unique_ptr<Runnable> self) = 0;

   protected:
    Slot slot;

   private:
    friend class RunQueue;
  };

  explicit RunQueue(Executor& executor) : executor_(executor) {}
  ~RunQueue();  // CHECKs that nothing runs or waits

  // Runs it later, on the executor; never inline.
  void Post(std::unique_ptr<Runnable> run) ABSL_LOCKS_EXCLUDED(mu_);

  // From now on. Those who run already are neither stopped nor, if there was no limit, counted.
  void SetLimit(int limit) ABSL_LOCKS_EXCLUDED(mu_);

 private:
  void Finished() ABSL_LOCKS_EXCLUDED(mu_);
  void StartWaiting() ABSL_LOCKS_EXCLUDED(mu_);
  bool HasRoom() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void Submit(std::unique_ptr<Runnable> run);

  Executor& executor_;
  std::atomic<int> limit_{0};  // written under mu_

  Mutex mu_;
  int running_ ABSL_GUARDED_BY(mu_) = 0;  // slots given out
  std::deque<std::unique_ptr<Runnable>> waiting_ ABSL_GUARDED_BY(mu_);
  bool starting_ ABSL_GUARDED_BY(mu_) = false;  // somebody is in StartWaiting()
};

}  // namespace hearth
