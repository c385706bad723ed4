#include "server/frontend/event_loop.h"

#include <pthread.h>

#include <chrono>
#include <string>
#include <utility>

#include "server/base/check.h"

namespace hearth {
namespace {

// A burst ends with the event that fills the one or the other.
constexpr int kMostAtOnce = 64;  // events
constexpr Duration kLongestBurst = std::chrono::microseconds(200);

}  // namespace

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
    : queue_(std::move(queue)),
      calls_(calls),
      guard_(guard),
      clock_(clock),
      sending_(clock, stall_timeout),
      pulse_(pulse) {}

EventLoop::~EventLoop() { Shutdown(); }

void EventLoop::Start(int index) {
  thread_ = std::thread([this] { Run(); });
  pthread_setname_np(thread_.native_handle(), ("grpc-" + std::to_string(index)).c_str());
  MutexLock lock(mu_);
  beats_ = true;
  SetBeat();
}

void EventLoop::BeginCall() {
  calls_.Begin();
  calls_in_progress_.fetch_add(1, std::memory_order_relaxed);
}

void EventLoop::EndCall() {
  calls_in_progress_.fetch_sub(1, std::memory_order_relaxed);
  calls_.End();
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
  self_ = std::this_thread::get_id();
  ThreadPool::Burst burst;
  burst_ = &burst;
  Deadline burst_ends = kNoDeadline;
  void* tag = nullptr;
  bool ok = false;
  while (true) {
    const auto next = queue_->AsyncNext(&tag, &ok, gpr_inf_past(GPR_CLOCK_MONOTONIC));
    if (next == grpc::CompletionQueue::SHUTDOWN) return;
    if (next == grpc::CompletionQueue::TIMEOUT) {
      EndBurst();
      if (!Await(&tag, &ok)) return;
    }
    if (fired_++ == 0) burst_ends = clock_.Now() + kLongestBurst;
    static_cast<Event*>(tag)->Fire(ok);
    if (IsAlone() || fired_ >= kMostAtOnce || clock_.Now() >= burst_ends) EndBurst();
  }
}

void EventLoop::EndBurst() {
  fired_ = 0;
  burst_->Flush();
  SendAnswers();
}

// The next event, of which there was none; at once, if there are answers to send after it. False: there are no more.
bool EventLoop::Await(void** tag, bool* ok) {
  {
    MutexLock lock(mu_);
    asleep_ = true;
    if (!outgoing_.empty()) Wake();
  }
  const bool more = queue_->Next(tag, ok);
  MutexLock lock(mu_);
  asleep_ = false;
  return more;
}

void EventLoop::Wake() {
  if (!std::exchange(waking_, true)) wake_.Set(queue_.get(), gpr_inf_past(GPR_CLOCK_MONOTONIC), &on_wake_);
}

void EventLoop::OnWake(bool) {
  MutexLock lock(mu_);
  waking_ = false;
}

bool EventLoop::TakeAnswer(Outgoing& answer) {
  if (IsAlone() || std::this_thread::get_id() == self_) return false;
  MutexLock lock(mu_);
  outgoing_.push_back(&answer);
  if (asleep_) Wake();
  return true;
}

void EventLoop::SendAnswers() {
  {
    MutexLock lock(mu_);
    sent_.swap(outgoing_);
  }
  for (Outgoing* answer : sent_) answer->Send();
  sent_.clear();
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
