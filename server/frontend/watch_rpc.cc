#include "server/frontend/watch_rpc.h"

#include <cstdint>
#include <limits>
#include <utility>

#include "server/base/check.h"
#include "server/base/status.h"
#include "server/frontend/cache_event_wire.h"
#include "server/frontend/grpc_status.h"

namespace hearth {
namespace {

const Rpc kRpc = FindRpc("hearth.v1.Cache/Watch");
constexpr std::uint64_t kForEver = std::numeric_limits<std::uint64_t>::max();

}  // namespace

// One stream. Owns itself, like a unary call: it goes after "answer sent" and "call over". Its state is guarded by the
// WatchRpc's lock.
class WatchRpc::Watch {
 public:
  static void Arm(WatchRpc& rpc, EventLoop& loop) { new Watch(rpc, loop); }

  // Something happened, or the stream may have to end: the next operation, unless one is under way.
  void Advance() ABSL_EXCLUSIVE_LOCKS_REQUIRED(rpc_.mu_) {
    if (busy_ || finishing_) return;
    // Starting an operation only queues it: nothing of ours runs under the lock.
    if (over_) return Finish(grpc::Status::CANCELLED);
    const EventLog::Found found = rpc_.events_.Read(next_, request_.model());
    next_ = found.next;
    const bool wanted = found.event != nullptr && found.event->sequence < until_;
    if (wanted || found.dropped > 0) return Write(wanted ? found.event : nullptr, found.dropped);
    if (next_ >= until_) return Finish(grpc::Status::OK);
    if (rpc_.ended_) Finish({grpc::StatusCode::UNAVAILABLE, "Server exiting"});
  }

 private:
  Watch(WatchRpc& rpc, EventLoop& loop) : rpc_(rpc), loop_(loop) {
    loop_.calls().Add();
    context_.AsyncNotifyWhenDone(&over_event_);
    rpc_.service_.RequestWatch(&context_, &request_, &writer_, loop_.queue(), loop_.queue(), &arrived_event_);
  }
  ~Watch() { loop_.calls().Remove(); }

  void Write(const EventLog::EventPtr& event, std::uint64_t dropped) ABSL_EXCLUSIVE_LOCKS_REQUIRED(rpc_.mu_) {
    hearth::v1::WatchResponse response;
    if (event != nullptr) FillEvent(*event, rpc_.clock_.Now(), rpc_.devices_, *response.mutable_event());
    response.set_dropped(dropped);
    busy_ = true;
    writer_.Write(response, &ready_event_);
  }
  void Finish(const grpc::Status& status) ABSL_EXCLUSIVE_LOCKS_REQUIRED(rpc_.mu_) {
    finishing_ = true;
    writer_.Finish(status, &finished_event_);
  }

  void OnArrived(bool ok) {
    if (!ok) {
      delete this;
      return;
    }
    Arm(rpc_, loop_);
    const absl::Status allowed = loop_.guard().Check(kRpc, context_);
    MutexLock lock(rpc_.mu_);
    if (!allowed.ok()) return Finish(ToGrpcStatus(allowed));
    if (rpc_.watches_.size() >= kMaxWatches) {
      return Finish({grpc::StatusCode::RESOURCE_EXHAUSTED,
                     StrCat(kMaxWatches, " clients watch the cache already; ask again when one has left")});
    }
    rpc_.watches_.insert(this);
    next_ = request_.history() ? rpc_.events_.begin() : rpc_.events_.end();
    if (request_.until_now()) until_ = rpc_.events_.end();
    busy_ = true;  // so that a client can tell that it will miss nothing from now on
    writer_.SendInitialMetadata(&ready_event_);
  }
  void OnReady(bool) {
    MutexLock lock(rpc_.mu_);
    busy_ = false;
    Advance();
  }
  void OnOver(bool) {
    {
      MutexLock lock(rpc_.mu_);
      over_ = true;
      Advance();
    }
    Release();
  }
  void OnFinished(bool) { Release(); }
  void Release() {
    if (--events_left_ > 0) return;
    {
      MutexLock lock(rpc_.mu_);
      rpc_.watches_.erase(this);
    }
    delete this;
  }

  WatchRpc& rpc_;
  EventLoop& loop_;
  grpc::ServerContext context_;
  hearth::v1::WatchRequest request_;
  grpc::ServerAsyncWriter<hearth::v1::WatchResponse> writer_{&context_};
  MemberEvent<Watch> arrived_event_{this, &Watch::OnArrived};
  MemberEvent<Watch> ready_event_{this, &Watch::OnReady};
  MemberEvent<Watch> over_event_{this, &Watch::OnOver};
  MemberEvent<Watch> finished_event_{this, &Watch::OnFinished};
  int events_left_ = 2;  // confined to the loop's thread
  std::uint64_t next_ ABSL_GUARDED_BY(rpc_.mu_) = 0;
  std::uint64_t until_ ABSL_GUARDED_BY(rpc_.mu_) = kForEver;  // events from here on are not wanted
  bool busy_ ABSL_GUARDED_BY(rpc_.mu_) = false;               // an operation is under way
  bool over_ ABSL_GUARDED_BY(rpc_.mu_) = false;               // the client is gone
  bool finishing_ ABSL_GUARDED_BY(rpc_.mu_) = false;          // no operation may follow
};

WatchRpc::WatchRpc(hearth::v1::Cache::AsyncService& service, EventLog& events, const DeviceNames& devices,
                   const Clock& clock)
    : service_(service), events_(events), devices_(devices), clock_(clock) {}

WatchRpc::~WatchRpc() { HEARTH_CHECK(watches_.empty()); }

void WatchRpc::Serve(EventLoop& loop) { Watch::Arm(*this, loop); }

void WatchRpc::EventAdded() {
  MutexLock lock(mu_);
  for (Watch* watch : watches_) watch->Advance();
}

void WatchRpc::End() {
  MutexLock lock(mu_);
  ended_ = true;
  for (Watch* watch : watches_) watch->Advance();
}

}  // namespace hearth
