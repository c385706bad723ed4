#include "server/base/thread_pool.h"

#include <pthread.h>

#include <algorithm>
#include <chrono>
#include <optional>
#include <system_error>
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

thread_local ThreadPool::Burst* burst_of_this_thread = nullptr;

}  // namespace

ThreadPool::Burst::Burst() {
  HEARTH_CHECK(burst_of_this_thread == nullptr);
  burst_of_this_thread = this;
}

ThreadPool::Burst::~Burst() {
  Flush();
  burst_of_this_thread = nullptr;
}

void ThreadPool::Burst::Add(ThreadPool& pool) {
  if (std::find(pools_.begin(), pools_.end(), &pool) == pools_.end()) pools_.push_back(&pool);
}

void ThreadPool::Burst::Flush() {
  for (ThreadPool* pool : pools_) pool->WakeForBurst();
  pools_.clear();
}

ThreadPool::ThreadPool(Options options) : options_(std::move(options)), busy_wait_(options_.busy_wait) {
  HEARTH_CHECK(options_.threads >= 1);
  MutexLock lock(mu_);
  for (std::size_t i = 0; i < options_.threads; ++i) StartThread();
}

// It begins when the lock is let go.
void ThreadPool::StartThread() {
  std::thread thread([this, number = started_++] {
    const std::string name = StrCat(options_.name, "-", number).substr(0, 15);
    pthread_setname_np(pthread_self(), name.c_str());
    if (options_.on_thread_start) options_.on_thread_start();
    Loop();
  });
  const std::thread::id id = thread.get_id();
  threads_.emplace(id, std::move(thread));
}

bool ThreadPool::TryStartThread() {
  try {
    StartThread();
    return true;
  } catch (const std::system_error&) {  // no more threads to be had
    return false;
  }
}

bool ThreadPool::Replace() {
  MutexLock lock(mu_);
  if (stopping_ || replaced_ == options_.replacements) return false;
  if (surplus_ > 0) {
    --surplus_;
  } else if (!TryStartThread()) {
    return false;
  }
  ++replaced_;
  return true;
}

void ThreadPool::EndReplacement() {
  MutexLock lock(mu_);
  HEARTH_CHECK(replaced_ > 0);
  --replaced_;
  ++surplus_;
  wake_.NotifyAll();
}

ThreadPool::~ThreadPool() { Shutdown(); }

void ThreadPool::Post(Task task) {
  Burst* const burst = burst_of_this_thread;
  if (burst != nullptr) burst->Add(*this);
  Task refused;  // destroyed after the lock is gone: its destructor may answer somebody
  bool wake = false;
  {
    MutexLock lock(mu_);
    if (stopping_) {
      refused = std::move(task);
    } else {
      queue_.push_back(std::move(task));
      CountQueued();
      wake = burst == nullptr && WakeAnother();
    }
  }
  if (wake) wake_.NotifyOne();
}

void ThreadPool::WakeForBurst() {
  bool wake = false;
  {
    MutexLock lock(mu_);
    wake = WakeAnother();
  }
  if (wake) wake_.NotifyOne();
}

bool ThreadPool::WakeAnother() {
  if (queue_.empty() || idle_ == 0 || waking_ || looking_) return false;
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
  while (std::optional<std::thread> thread = TakeThread()) thread->join();
}

// One that has to be joined. None ends by itself any more, for the pool stops.
std::optional<std::thread> ThreadPool::TakeThread() {
  MutexLock lock(mu_);
  std::thread thread;
  if (!ended_.empty()) {
    thread = std::move(ended_.back());
    ended_.pop_back();
  } else if (!threads_.empty()) {
    thread = std::move(threads_.begin()->second);
    threads_.erase(threads_.begin());
  } else {
    return std::nullopt;
  }
  return thread;
}

std::size_t ThreadPool::threads() const {
  MutexLock lock(mu_);
  return threads_.size();
}

std::size_t ThreadPool::queued() const {
  MutexLock lock(mu_);
  return queue_.size();
}

bool ThreadPool::TasksAreShort() const { return typical_ < kShortTask; }

// This thread is one too many.
std::vector<std::thread> ThreadPool::EndThread() {
  --surplus_;
  std::vector<std::thread> before = std::exchange(ended_, {});
  const auto self = threads_.find(std::this_thread::get_id());
  ended_.push_back(std::move(self->second));
  threads_.erase(self);
  if (WakeAnother()) wake_.NotifyOne();
  return before;
}

void ThreadPool::LookForTask() {
  if (!queue_.empty() || looking_ || stopping_ || !TasksAreShort() || !busy_wait_.IsDue()) return;
  looking_ = true;
  mu_.Unlock();
  const BusyWait::Looked looked = BusyWait::Look(queued_, options_.busy_wait);
  mu_.Lock();
  looking_ = false;
  busy_wait_.Learn(looked);
}

void ThreadPool::AwaitTask() {
  LookForTask();
  int rounds = 0;
  while (queue_.empty() && !stopping_ && surplus_ == 0) {
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
  std::vector<std::thread> ended;
  while (true) {
    Task task;
    bool wake = false;
    {
      MutexLock lock(mu_);
      if (!std::exchange(first, false)) typical_ += (std::min(spent, kLongest) - typical_) / kAveragedOver;
      AwaitTask();
      if (stopping_) return;  // nothing is queued then
      if (surplus_ > 0) {
        ended = EndThread();
        break;
      }
      task = std::move(queue_.front());
      queue_.pop_front();
      CountQueued();
      wake = WakeAnother();
    }
    if (wake) wake_.NotifyOne();
    const TimePoint start = std::chrono::steady_clock::now();
    std::move(task)();
    spent = std::chrono::steady_clock::now() - start;
  }
  for (std::thread& thread : ended) thread.join();
}

}  // namespace hearth
