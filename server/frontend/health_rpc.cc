#include "server/frontend/health_rpc.h"

#include <optional>
#include <utility>

#include "server/base/check.h"
#include "server/base/status.h"
#include "server/frontend/unary_call.h"

namespace hearth {
namespace {

using grpc::health::v1::HealthCheckRequest;
using grpc::health::v1::HealthCheckResponse;
using AsyncService = grpc::health::v1::Health::AsyncService;
using CheckCall = UnaryCall<HealthCheckRequest, HealthCheckResponse>;

constexpr const char* kLiveness = "liveness";
constexpr int kArmed = 4;
const Rpc kWatchRpc = FindRpc("grpc.health.v1.Health/Watch");

}  // namespace

// One Watch stream. Owns itself, like a unary call: it goes after "answer sent" and "call over".
// Sends one message at a time; statuses that change faster than the client reads are skipped. Its
// state is guarded by the HealthRpc's lock.
class HealthRpc::Watch {
 public:
  static void Arm(HealthRpc& rpc, EventLoop& loop) { new Watch(rpc, loop); }

  // The status may have changed, or the stream may have to end.
  void Advance() ABSL_EXCLUSIVE_LOCKS_REQUIRED(rpc_.mu_) {
    if (busy_ || finishing_) return;
    // Starting an operation only queues it: nothing of ours runs under the lock.
    const Status status = rpc_.StatusOf(request_.service());
    if (over_ || (rpc_.ended_ && sent_ == status)) {  // the last word is not lost
      finishing_ = true;
      writer_.Finish({grpc::StatusCode::UNAVAILABLE, "Server exiting"}, &finished_event_);
      return;
    }
    if (sent_ == status) return;
    sent_ = status;
    busy_ = true;
    HealthCheckResponse response;
    response.set_status(status);
    writer_.Write(response, &written_event_);
  }

 private:
  Watch(HealthRpc& rpc, EventLoop& loop) : rpc_(rpc), loop_(loop) {
    loop_.calls().Add();
    context_.AsyncNotifyWhenDone(&over_event_);
    rpc_.service_.RequestWatch(&context_, &request_, &writer_, loop_.queue(), loop_.queue(),
                               &arrived_event_);
  }
  ~Watch() { loop_.calls().Remove(); }

  void OnArrived(bool ok) {
    if (!ok) {
      delete this;
      return;
    }
    Arm(rpc_, loop_);
    const absl::Status allowed = loop_.guard().Check(kWatchRpc, context_);
    MutexLock lock(rpc_.mu_);
    if (!allowed.ok()) {
      finishing_ = true;
      return writer_.Finish(ToGrpcStatus(allowed), &finished_event_);
    }
    rpc_.watches_.insert(this);
    Advance();
  }
  void OnWritten(bool) {
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

  HealthRpc& rpc_;
  EventLoop& loop_;
  grpc::ServerContext context_;
  HealthCheckRequest request_;
  grpc::ServerAsyncWriter<HealthCheckResponse> writer_{&context_};
  MemberEvent<Watch> arrived_event_{this, &Watch::OnArrived};
  MemberEvent<Watch> written_event_{this, &Watch::OnWritten};
  MemberEvent<Watch> over_event_{this, &Watch::OnOver};
  MemberEvent<Watch> finished_event_{this, &Watch::OnFinished};
  int events_left_ = 2;  // confined to the loop's thread
  std::optional<Status> sent_ ABSL_GUARDED_BY(rpc_.mu_);
  bool busy_ ABSL_GUARDED_BY(rpc_.mu_) = false;       // a message is being written
  bool over_ ABSL_GUARDED_BY(rpc_.mu_) = false;       // the client is gone
  bool finishing_ ABSL_GUARDED_BY(rpc_.mu_) = false;  // no operation may follow
};

HealthRpc::HealthRpc(const std::vector<std::string>& names) {
  for (const std::string& name : names) statuses_[name] = HealthCheckResponse::NOT_SERVING;
  statuses_[kLiveness] = HealthCheckResponse::SERVING;
}

HealthRpc::~HealthRpc() { HEARTH_CHECK(watches_.empty()); }

HealthRpc::Status HealthRpc::StatusOf(const std::string& name) const {
  const auto it = statuses_.find(name);
  return it == statuses_.end() ? HealthCheckResponse::SERVICE_UNKNOWN : it->second;
}

void HealthRpc::Serve(EventLoop& loop) {
  ServeUnary(loop, "grpc.health.v1.Health/Check", service_, &AsyncService::RequestCheck, kArmed, [this](CheckCall call) {
    Status status = HealthCheckResponse::UNKNOWN;
    {
      MutexLock lock(mu_);
      status = StatusOf(call.request().service());
    }
    if (status == HealthCheckResponse::SERVICE_UNKNOWN) {
      const std::string name = call.request().service();
      std::move(call).Finish(absl::NotFoundError(StrCat("unknown service '", name, "'")));
      return;
    }
    call.response().set_status(status);
    std::move(call).Finish(absl::OkStatus());
  });
  Watch::Arm(*this, loop);
}

void HealthRpc::SetServing(bool serving) {
  MutexLock lock(mu_);
  for (auto& [name, status] : statuses_) {
    if (name == kLiveness) continue;
    status = serving ? HealthCheckResponse::SERVING : HealthCheckResponse::NOT_SERVING;
  }
  for (Watch* watch : watches_) watch->Advance();
}

void HealthRpc::EndWatches() {
  MutexLock lock(mu_);
  ended_ = true;
  for (Watch* watch : watches_) watch->Advance();
}

}  // namespace hearth
