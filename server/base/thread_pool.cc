#include "server/base/thread_pool.h"

#include <pthread.h>

#include <algorithm>
#include <chrono>
#include <utility>

#include "server/base/check.h"
#include "server/base/strings.h"

namespace hearth {
namespace {

using std::chrono::microseconds;
using std::chrono::milliseconds;

constexpr Duration kShortTask = microseconds(100);
constexpr Duration kWatchEvery = milliseconds(1);
constexpr int kQuietRounds = 10;              // of the watch, before it ends
constexpr Duration kLongest = milliseconds(1);  // counted: one long task changes the average at once
constexpr int kAveragedOver = 8;

}  // namespace

ThreadPool::ThreadPool(Options options) : options_(std::move(options)) {
  HEARTH_CHECK(options_.threads >= 1);
  threads_.reserve(options_.threads);
  for (std::size_t i = 0; i < options_.threads; ++i) {
    threads_.emplace_back([this, i] {
      const std::string name = StrCat(options_.name, "-", i).substr(0, 15);
      pthread_setname_np(pthread_self(), name.c_str());
      if (options_.on_thread_start) options_.on_thread_start();
      Loop();
    });
  }
}

ThreadPool::~ThreadPool() { Shutdown(); }

void ThreadPool::Post(Task task) {
  Task refused;  // destroyed after the lock is gone: its destructor may answer somebody
  bool wake = false;
  {
    MutexLock lock(mu_);
    if (stopping_) {
      refused = std::move(task);
    } else {
      queue_.push_back(std::move(task));
      wake = WakeAnother();
    }
  }
  if (wake) wake_.NotifyOne();
}

bool ThreadPool::WakeAnother() {
  if (queue_.empty() || idle_ == 0 || waking_) return false;
  const bool somebody_is_at_it = idle_ < options_.threads;
  if (somebody_is_at_it && watched_ && TasksAreShort()) return false;
  waking_ = true;
  return true;
}

void ThreadPool::Shutdown() {
  std::deque<Task> dropped;
  {
    MutexLock lock(mu_);
    stopping_ = true;
    dropped.swap(queue_);
    wake_.NotifyAll();
  }
  dropped.clear();
  for (std::thread& thread : threads_) {
    if (thread.joinable()) thread.join();
  }
}

std::size_t ThreadPool::queued() const {
  MutexLock lock(mu_);
  return queue_.size();
}

bool ThreadPool::TasksAreShort() const { return typical_ < kShortTask; }

void ThreadPool::AwaitTask() {
  int rounds = 0;
  while (queue_.empty() && !stopping_) {
    ++idle_;
    if (TasksAreShort() && !watched_ && rounds < kQuietRounds && options_.threads > 1) {
      watched_ = true;
      wake_.WaitUntil(mu_, std::chrono::steady_clock::now() + kWatchEvery);
      watched_ = false;
      ++rounds;
    } else {
      wake_.Wait(mu_);
    }
    --idle_;
    waking_ = false;
  }
}

void ThreadPool::Loop() {
  Duration spent = Duration::zero();
  bool first = true;
  while (true) {
    Task task;
    bool wake = false;
    {
      MutexLock lock(mu_);
      if (!std::exchange(first, false)) typical_ += (std::min(spent, kLongest) - typical_) / kAveragedOver;
      AwaitTask();
      if (queue_.empty()) return;
      task = std::move(queue_.front());
      queue_.pop_front();
      wake = WakeAnother();
    }
    if (wake) wake_.NotifyOne();
    const TimePoint start = std::chrono::steady_clock::now();
    std::move(task)();
    spent = std::chrono::steady_clock::now() - start;
  }
}

}  // namespace hearth
