// An Executor on named threads.
#pragma once

#include <atomic>
#include <cstddef>
#include <deque>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "server/base/busy_wait.h"
#include "server/base/clock.h"
#include "server/base/executor.h"
#include "server/base/mutex.h"

namespace hearth {

// Unbounded queue: whoever posts bounds what it posts. A task that throws ends the process (an
// exception that gets here is a bug). Thread-safe.
//
// How many threads share the work follows from how long tasks take. Waking a thread costs more than a
// task of a few microseconds, so while tasks are that short, those that are awake are left to it, and
// one idle thread looks every millisecond whether they fell behind. Longer tasks run on as many threads
// as there are tasks, at once. With `busy_wait`, one thread whose tasks are short looks for the next one before it sleeps.
class ThreadPool final : public Executor {
 public:
  // For a thread that posts many small tasks in a row: while it has one of these, no thread is woken for what it posts
  // before Flush(), and then one is for all of it. A thread that is awake takes it all the same. Where threads are more than
  // processors, one that is woken takes the processor from who woke it, and every task would cost two switches.
  //
  // Confined to its thread, which has one at most and waits for nothing that it posted before Flush(). REQUIRES: the pools
  // are there at Flush().
  class Burst {
   public:
    Burst();
    ~Burst();  // Flush()
    Burst(const Burst&) = delete;
    Burst& operator=(const Burst&) = delete;

    void Flush();

   private:
    friend class ThreadPool;
    void Add(ThreadPool& pool);

    std::vector<ThreadPool*> pools_;  // with something in the queue that nobody was woken for
  };

  struct Options {
    std::string name;         // threads are called "<name>-<i>" (15 characters at most are kept)
    std::size_t threads = 1;  // at least 1
    std::function<void()> on_thread_start;  // run once by each thread before its first task
    std::size_t replacements = 0;  // so many threads more, at most, for those that are stuck
    Duration busy_wait{};          // BusyWait; zero: threads sleep at once
  };

  explicit ThreadPool(Options options);
  ~ThreadPool() override;  // Shutdown()

  void Post(Task task) override ABSL_LOCKS_EXCLUDED(mu_);
  bool Replace() override ABSL_LOCKS_EXCLUDED(mu_);
  void EndReplacement() override ABSL_LOCKS_EXCLUDED(mu_);
  std::size_t width() const override { return options_.threads; }

  // Lets running tasks finish, destroys queued ones unrun, joins the threads. Idempotent.
  // REQUIRES: not called from one of the pool's own threads, nor by two at once.
  void Shutdown() ABSL_LOCKS_EXCLUDED(mu_);

  std::size_t threads() const ABSL_LOCKS_EXCLUDED(mu_);  // with those that replace others
  std::size_t queued() const ABSL_LOCKS_EXCLUDED(mu_);

 private:
  std::optional<std::thread> TakeThread() ABSL_LOCKS_EXCLUDED(mu_);
  // Returns those that ended before, to be joined without the lock.
  std::vector<std::thread> EndThread() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void StartThread() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  bool TryStartThread() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void Loop() ABSL_LOCKS_EXCLUDED(mu_);
  // Returns when there is a task, the pool stops, or a thread is to end.
  void AwaitTask() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // Whether the caller is to call wake_.NotifyOne(), after it has let go of the lock: a thread woken
  // under it would only go back to sleep.
  bool WakeAnother() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void WakeForBurst() ABSL_LOCKS_EXCLUDED(mu_);
  // Waits awake where that is worth it; without the lock. Whether there is a task then is for the caller to see.
  void LookForTask() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void CountQueued() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) { queued_.store(queue_.size(), std::memory_order_relaxed); }
  bool TasksAreShort() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  const Options options_;
  mutable Mutex mu_;
  CondVar wake_;
  std::deque<Task> queue_ ABSL_GUARDED_BY(mu_);
  std::atomic<std::size_t> queued_{0};  // in queue_, for one who looks without the lock
  std::size_t idle_ ABSL_GUARDED_BY(mu_) = 0;  // threads that wait on wake_
  // A thread was woken and has not looked at the queue yet. It wakes the next one if there is more to
  // do, so a burst of small tasks costs one system call and not one for each.
  bool waking_ ABSL_GUARDED_BY(mu_) = false;
  bool watched_ ABSL_GUARDED_BY(mu_) = false;  // an idle thread will look at the queue by itself
  BusyWait busy_wait_ ABSL_GUARDED_BY(mu_);
  bool looking_ ABSL_GUARDED_BY(mu_) = false;  // a thread does, and will see what is posted
  Duration typical_ ABSL_GUARDED_BY(mu_) = std::chrono::milliseconds(1);  // moving average over tasks
  bool stopping_ ABSL_GUARDED_BY(mu_) = false;
  std::size_t replaced_ ABSL_GUARDED_BY(mu_) = 0;
  std::size_t surplus_ ABSL_GUARDED_BY(mu_) = 0;  // threads that are to end as soon as they are idle
  std::size_t started_ ABSL_GUARDED_BY(mu_) = 0;
  std::map<std::thread::id, std::thread> threads_ ABSL_GUARDED_BY(mu_);  // joined in Shutdown()
  std::vector<std::thread> ended_ ABSL_GUARDED_BY(mu_);  // surplus: need only be joined, by the next one or Shutdown()
};

}  // namespace hearth
