#include "server/frontend/event_loop.h"

#include <pthread.h>

#include <chrono>
#include <string>
#include <utility>

#include "server/base/check.h"

namespace hearth {

void CallCount::Add() {
  MutexLock lock(mu_);
  ++count_;
}

void CallCount::Remove() {
  MutexLock lock(mu_);
  HEARTH_CHECK(count_ > 0);
  // Under the lock: whoever waits may destroy this object as soon as it can have the lock.
  if (--count_ == 0) none_.NotifyAll();
}

bool CallCount::WaitForZero(const std::int64_t& number, Deadline deadline) {
  while (number > 0) {
    if (deadline == kNoDeadline) {
      none_.Wait(mu_);
    } else if (!none_.WaitUntil(mu_, deadline)) {
      return number == 0;
    }
  }
  return true;
}

bool CallCount::WaitForNone(Deadline deadline) {
  MutexLock lock(mu_);
  return WaitForZero(count_, deadline);
}

std::int64_t CallCount::count() const {
  MutexLock lock(mu_);
  return count_;
}

void CallCount::Begin() {
  MutexLock lock(mu_);
  ++unanswered_;
}

void CallCount::End() {
  MutexLock lock(mu_);
  HEARTH_CHECK(unanswered_ > 0);
  if (--unanswered_ == 0) none_.NotifyAll();
}

bool CallCount::WaitForAnswers(Deadline deadline) {
  MutexLock lock(mu_);
  return WaitForZero(unanswered_, deadline);
}

std::int64_t CallCount::unanswered() const {
  MutexLock lock(mu_);
  return unanswered_;
}

EventLoop::EventLoop(std::unique_ptr<grpc::ServerCompletionQueue> queue, CallCount& calls, const RpcGuard& guard,
                     const Clock& clock, Duration stall_timeout, Heartbeats::Pulse* pulse)
    : queue_(std::move(queue)), calls_(calls), guard_(guard), sending_(clock, stall_timeout), pulse_(pulse) {}

EventLoop::~EventLoop() { Shutdown(); }

void EventLoop::Start(int index) {
  thread_ = std::thread([this] { Run(); });
  pthread_setname_np(thread_.native_handle(), ("grpc-" + std::to_string(index)).c_str());
  MutexLock lock(mu_);
  beats_ = true;
  SetBeat();
}

void EventLoop::SetBeat() {
  const auto in_a_beat = std::chrono::duration_cast<std::chrono::system_clock::duration>(Heartbeats::kBeat);
  beat_.Set(queue_.get(), std::chrono::system_clock::now() + in_a_beat, &on_beat_);
}

void EventLoop::Beat(bool) {
  if (pulse_ != nullptr) pulse_->Beat();
  sending_.Look();
  MutexLock lock(mu_);
  if (beats_) SetBeat();
}

void EventLoop::Run() {
  void* tag = nullptr;
  bool ok = false;
  while (queue_->Next(&tag, &ok)) static_cast<Event*>(tag)->Fire(ok);
}

void EventLoop::Shutdown() {
  if (std::exchange(shut_down_, true)) return;
  HEARTH_CHECK(calls_.count() == 0);
  {
    MutexLock lock(mu_);
    if (std::exchange(beats_, false)) beat_.Cancel();  // its event comes before the queue's end
  }
  queue_->Shutdown();
  if (thread_.joinable()) {
    thread_.join();
  } else {
    Run();  // never started: the queue must be empty before it is destroyed all the same
  }
}

}  // namespace hearth
