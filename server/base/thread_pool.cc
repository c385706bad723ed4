#include "server/base/thread_pool.h"

#include <pthread.h>

#include <utility>

#include "server/base/check.h"
#include "server/base/strings.h"

namespace hearth {

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

void ThreadPool::Loop() {
  while (true) {
    Task task;
    bool wake = false;
    {
      MutexLock lock(mu_);
      while (queue_.empty() && !stopping_) {
        ++idle_;
        wake_.Wait(mu_);
        --idle_;
        waking_ = false;
      }
      if (queue_.empty()) return;
      task = std::move(queue_.front());
      queue_.pop_front();
      wake = WakeAnother();
    }
    if (wake) wake_.NotifyOne();
    std::move(task)();
  }
}

}  // namespace hearth
