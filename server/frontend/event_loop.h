// gRPC's completion queues, each with the one thread that empties it.
//
// The CompletionQueue API and not the callback API: gRPC 1.51's callback threads sleep up to 100 ms
// when there was nothing to do for a while.
#pragma once

#include <grpcpp/alarm.h>
#include <grpcpp/grpcpp.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <thread>
#include <vector>

#include "server/base/clock.h"
#include "server/base/heartbeats.h"
#include "server/base/mutex.h"
#include "server/base/thread_pool.h"
#include "server/frontend/rpc_guard.h"
#include "server/frontend/send_watch.h"

namespace hearth {

// What a completion queue hands back: a pointer to one of these is the "tag" of an operation.
class Event {
 public:
  // `ok`: the operation did what it was started for. Runs on the queue's thread: never blocks.
  virtual void Fire(bool ok) = 0;

 protected:
  ~Event() = default;
};

// An answer that is ready to be sent.
class Outgoing {
 public:
  // Runs on the loop's thread: never blocks. May destroy this.
  virtual void Send() = 0;

 protected:
  ~Outgoing() = default;
};

// An event that calls a member function of its owner.
template <typename T>
class MemberEvent final : public Event {
 public:
  using Method = void (T::*)(bool ok);
  MemberEvent(T* owner, Method method) : owner_(owner), method_(method) {}
  // May destroy the owner, and with it this event.
  void Fire(bool ok) override { (owner_->*method_)(ok); }

 private:
  T* const owner_;
  const Method method_;
};

// How many calls exist, over all queues: waiting for a client, running, or being answered. A queue
// may be shut down only when there are none, because starting an operation on one that is aborts.
// And how many of them a client waits for, which is what a shutdown has to be patient with.
//
// Thread-safe.
class CallCount {
 public:
  void Add() ABSL_LOCKS_EXCLUDED(mu_);
  void Remove() ABSL_LOCKS_EXCLUDED(mu_);
  // True: there are none. False: `deadline` passed first.
  bool WaitForNone(Deadline deadline) ABSL_LOCKS_EXCLUDED(mu_);
  std::int64_t count() const ABSL_LOCKS_EXCLUDED(mu_);

  // A client came for one, and its answer is out or the client is gone.
  void Begin() ABSL_LOCKS_EXCLUDED(mu_);
  void End() ABSL_LOCKS_EXCLUDED(mu_);
  // True: nobody waits for an answer. False: `deadline` passed first.
  bool WaitForAnswers(Deadline deadline) ABSL_LOCKS_EXCLUDED(mu_);
  std::int64_t unanswered() const ABSL_LOCKS_EXCLUDED(mu_);

 private:
  bool WaitForZero(const std::int64_t& number, Deadline deadline)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  mutable Mutex mu_;
  CondVar none_;  // one of the two became zero
  std::int64_t count_ ABSL_GUARDED_BY(mu_) = 0;
  std::int64_t unanswered_ ABSL_GUARDED_BY(mu_) = 0;
};

// Bytes. Of a larger message it is the copies that count: others are woken before a request's, and whoever has made such an
// answer sends it, beside the loop's thread.
inline constexpr std::size_t kLargeMessage = 64 << 10;

// One completion queue and its thread. All events of a call come from the queue it was registered
// on, so what only they touch needs no lock.
//
// Where several calls are in progress the thread takes all events that are there before it wakes anybody for what they
// brought, for a fraction of a millisecond, and sends the small answers itself: of tens of calls in a row each thread does
// its part at once, and what gRPC knows of a connection stays with one processor. A call that is alone goes the shortest
// way: its compute thread is woken at once, and sends the answer. Who has come before a large message does not wait for
// its copies.
class EventLoop {
 public:
  // What it refers to outlives the loop, and so does `pulse`, which beats for as long as events are fired; null: none does.
  // `stall_timeout`: an answer that does not move for so long is given up; 0: none is.
  EventLoop(std::unique_ptr<grpc::ServerCompletionQueue> queue, CallCount& calls, const RpcGuard& guard, const Clock& clock,
            Duration stall_timeout, Heartbeats::Pulse* pulse = nullptr);
  ~EventLoop();  // Shutdown()

  // REQUIRES: the server has been started.
  void Start(int index);
  // REQUIRES: no calls exist any more. Idempotent.
  void Shutdown();

  grpc::ServerCompletionQueue* queue() { return queue_.get(); }
  CallCount& calls() { return calls_; }
  const RpcGuard& guard() const { return guard_; }
  SendWatch& sending() { return sending_; }

  // A call of this loop has come, and is over: calls() hears of it, too. On the loop's thread.
  void BeginCall();
  void EndCall();

  // All who wait for what has come so far are woken, and answers that are done are sent: before an event takes long. On the
  // loop's thread.
  void EndBurst() ABSL_LOCKS_EXCLUDED(mu_);

  // True: the loop's thread will send it soon. False: the caller is to send it. Any thread.
  // REQUIRES: `answer` is of a call in progress, which nothing ends before it is sent.
  [[nodiscard]] bool TakeAnswer(Outgoing& answer) ABSL_LOCKS_EXCLUDED(mu_);

 private:
  void Run();
  bool Await(void** tag, bool* ok) ABSL_LOCKS_EXCLUDED(mu_);
  bool IsAlone() const { return calls_in_progress_.load(std::memory_order_relaxed) <= 1; }
  void SendAnswers() ABSL_LOCKS_EXCLUDED(mu_);
  void Wake() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void OnWake(bool ok) ABSL_LOCKS_EXCLUDED(mu_);
  void Beat(bool ok) ABSL_LOCKS_EXCLUDED(mu_);
  void SetBeat() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  const std::unique_ptr<grpc::ServerCompletionQueue> queue_;
  CallCount& calls_;
  const RpcGuard& guard_;
  const Clock& clock_;
  SendWatch sending_;
  Heartbeats::Pulse* const pulse_;
  MemberEvent<EventLoop> on_beat_{this, &EventLoop::Beat};
  Mutex mu_;
  bool beats_ ABSL_GUARDED_BY(mu_) = false;
  grpc::Alarm beat_ ABSL_GUARDED_BY(mu_);
  std::atomic<int> calls_in_progress_{0};
  ThreadPool::Burst* burst_ = nullptr;  // Run()'s; this and the next one are the loop's thread's
  int fired_ = 0;                       // events of this burst
  MemberEvent<EventLoop> on_wake_{this, &EventLoop::OnWake};
  std::vector<Outgoing*> outgoing_ ABSL_GUARDED_BY(mu_);
  std::vector<Outgoing*> sent_;          // the loop's thread's; empty but while it sends
  bool asleep_ ABSL_GUARDED_BY(mu_) = false;  // will not look at outgoing_ before the next event
  bool waking_ ABSL_GUARDED_BY(mu_) = false;  // wake_ is that event
  grpc::Alarm wake_ ABSL_GUARDED_BY(mu_);
  std::thread thread_;
  std::thread::id self_;  // of who runs Run(), and who knows of a call knows it
  bool shut_down_ = false;
};

}  // namespace hearth
