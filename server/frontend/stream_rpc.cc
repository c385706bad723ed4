#include "server/frontend/stream_rpc.h"

#include <cstdint>
#include <deque>
#include <stop_token>
#include <utility>
#include <vector>

#include "server/base/check.h"
#include "server/frontend/grpc_status.h"

namespace hearth {
namespace {

// New clients find this many streams waiting for them, per loop.
constexpr int kArmed = 4;
const Rpc kRpc = FindRpc("inference.GRPCInferenceService/ModelStreamInfer");
constexpr const char* kEndOnErrorKey = "triton_grpc_error";

bool WantsToEndOnError(const grpc::ServerContext& context) {
  const auto found = context.client_metadata().find(kEndOnErrorKey);
  return found != context.client_metadata().end() && found->second == "true";
}

}  // namespace

// One stream. Held by the StreamRpc until gRPC has reported everything that it was told to, and by the requests that
// have not been answered. Its lock is held while that of the calls' count, a leaf, is taken.
class StreamRpc::Stream : public std::enable_shared_from_this<Stream> {
 public:
  static void Arm(StreamRpc& rpc, EventLoop& loop) {
    const std::shared_ptr<Stream> stream(new Stream(rpc, loop));
    {
      MutexLock lock(rpc.mu_);
      stream->ended_ = rpc.ended_;
      rpc.streams_.insert(stream);
    }
    stream->Listen();
  }

  // See StreamRpc::End.
  void End() ABSL_LOCKS_EXCLUDED(mu_) {
    MutexLock lock(mu_);
    ended_ = true;
    if (arrived_) Advance();
  }

 private:
  // Counted until nothing is left of the stream, whichever thread drops it last: with the count go the loops.
  class Counted {
   public:
    explicit Counted(CallCount& calls) : calls_(calls) { calls_.Add(); }
    ~Counted() { calls_.Remove(); }
    CallCount& calls() { return calls_; }

   private:
    CallCount& calls_;
  };
  // A request that was read, until its answer has been written.
  struct Slot {
    bool answered = false;
    absl::Status status;     // not OK: the stream ends with it
    grpc::ByteBuffer bytes;  // of a ModelStreamInferResponse
  };

  Stream(StreamRpc& rpc, EventLoop& loop) : count_(loop.calls()), rpc_(rpc), loop_(loop) {}

  void Listen() {
    context_.AsyncNotifyWhenDone(&over_event_);
    rpc_.service_.RequestModelStreamInfer(&context_, &io_, loop_.queue(), loop_.queue(), &arrived_event_);
  }

  // Starting an operation only queues it: nothing of ours runs under the lock.
  void Advance() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    if (finishing_) return;
    if (!writing_) Write();
    if (!finishing_ && !reading_ && !read_all_ && !ended_ && !gone_ && slots_.size() < kMaxInFlight) {
      reading_ = true;
      io_.Read(&request_, &read_event_);
    }
  }

  // What is next on the way out.
  void Write() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    if (gone_) return Finish(grpc::Status::CANCELLED);
    if (slots_.empty()) {
      if (read_all_) return Finish(grpc::Status::OK);
      if (ended_) return Finish({grpc::StatusCode::UNAVAILABLE, "Server exiting"});
      return;
    }
    Slot& next = slots_.front();
    if (!next.answered) return;
    if (!next.status.ok()) return Finish(ToGrpcStatus(next.status, context_));
    writing_ = true;
    loop_.sending().Begin(sending_, next.bytes.Length());
    io_.Write(next.bytes, &written_event_);
    next.bytes.Clear();  // gRPC has it
  }

  void Finish(const grpc::Status& status) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    finishing_ = true;
    while (!slots_.empty()) DropFirst();
    io_.Finish(status, &finished_event_);
  }

  void DropFirst() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    slots_.pop_front();
    ++first_;
    count_.calls().End();
  }

  void OnArrived(bool ok) {
    if (!ok) return Leave();  // the server is shutting down
    Arm(rpc_, loop_);
    const absl::Status allowed = loop_.guard().Check(kRpc, context_);
    MutexLock lock(mu_);
    arrived_ = true;
    if (!allowed.ok()) return Finish(ToGrpcStatus(allowed));
    ends_on_error_ = WantsToEndOnError(context_);
    Advance();
  }

  void OnRead(bool ok) {
    const std::shared_ptr<Stream> self = shared_from_this();
    std::uint64_t number = 0;
    bool wanted = false;
    {
      MutexLock lock(mu_);
      reading_ = false;
      wanted = ok && !finishing_ && !gone_ && !ended_;
      if (wanted) {
        number = first_ + slots_.size();
        slots_.emplace_back();
        count_.calls().Begin();
      } else {
        read_all_ = read_all_ || !ok;
        Advance();
      }
    }
    if (!wanted) return LeaveIfDone();
    if (request_.Length() > kLargeMessage) loop_.EndBurst();
    Exchange(request_, InferRpc::kStream, CallerOf(context_, rpc_.deps_), stop_.get_token(), rpc_.deps_,
             [self, number](InferAnswer answer) { self->Answer(number, std::move(answer)); });
    MutexLock lock(mu_);
    Advance();
  }

  // Any thread.
  void Answer(std::uint64_t number, InferAnswer answer) ABSL_LOCKS_EXCLUDED(mu_) {
    Slot slot{.answered = true, .status = {}, .bytes = {}};
    if (answer.bytes.ok()) {
      slot.bytes = *std::move(answer.bytes);
    } else if (ends_on_error_) {
      slot.status = answer.bytes.status();
    } else {
      slot.bytes = ToStreamError(answer.bytes.status(), answer.id);
    }
    MutexLock lock(mu_);
    if (finishing_) return;  // it has been dropped
    slots_[number - first_] = std::move(slot);
    Advance();
  }

  void OnWritten(bool ok) {
    loop_.sending().End(sending_);
    {
      MutexLock lock(mu_);
      writing_ = false;
      gone_ = gone_ || !ok;
      DropFirst();
      Advance();
    }
    LeaveIfDone();
  }

  // The client is gone, or Finish() has been carried out.
  void OnOver(bool) {
    {
      MutexLock lock(mu_);
      gone_ = true;
      over_ = true;
      Advance();
    }
    stop_.request_stop();  // answers those that wait, on this thread
    LeaveIfDone();
  }

  void OnFinished(bool) {
    {
      MutexLock lock(mu_);
      finished_ = true;
    }
    LeaveIfDone();
  }

  // On the loop's thread, which is the only one that fires events: when all have been, nothing refers to this.
  void LeaveIfDone() {
    {
      MutexLock lock(mu_);
      if (!over_ || !finished_ || reading_ || writing_) return;
    }
    Leave();
  }
  void Leave() {
    const std::shared_ptr<Stream> self = shared_from_this();  // its end is not for the lock
    MutexLock lock(rpc_.mu_);
    rpc_.streams_.erase(self);
  }

  Counted count_;  // first, so that it goes last
  StreamRpc& rpc_;
  EventLoop& loop_;
  grpc::ServerContext context_;
  grpc::ServerAsyncReaderWriter<grpc::ByteBuffer, grpc::ByteBuffer> io_{&context_};
  MemberEvent<Stream> arrived_event_{this, &Stream::OnArrived};
  MemberEvent<Stream> read_event_{this, &Stream::OnRead};
  MemberEvent<Stream> written_event_{this, &Stream::OnWritten};
  MemberEvent<Stream> over_event_{this, &Stream::OnOver};
  MemberEvent<Stream> finished_event_{this, &Stream::OnFinished};
  grpc::ByteBuffer request_;     // gRPC's while a read is under way, else the loop's thread's
  std::stop_source stop_;        // for all of its requests
  SendWatch::Answer sending_{context_};
  bool ends_on_error_ = false;   // constant once the first request has been read
  Mutex mu_;
  std::deque<Slot> slots_ ABSL_GUARDED_BY(mu_);   // in the order of the requests
  std::uint64_t first_ ABSL_GUARDED_BY(mu_) = 0;  // number of the first of them
  bool arrived_ ABSL_GUARDED_BY(mu_) = false;     // a client came
  bool reading_ ABSL_GUARDED_BY(mu_) = false;     // an operation is under way, as is
  bool writing_ ABSL_GUARDED_BY(mu_) = false;     // this one, of the first slot's answer
  bool read_all_ ABSL_GUARDED_BY(mu_) = false;    // the client sends no more
  bool ended_ ABSL_GUARDED_BY(mu_) = false;       // the server reads no more
  bool gone_ ABSL_GUARDED_BY(mu_) = false;        // nobody is there to be written to
  bool finishing_ ABSL_GUARDED_BY(mu_) = false;   // no operation may follow
  bool finished_ ABSL_GUARDED_BY(mu_) = false;    // gRPC has reported that, and
  bool over_ ABSL_GUARDED_BY(mu_) = false;        // that the call is over
};

StreamRpc::StreamRpc(InferenceAsyncService& service, InferenceRpcDeps deps) : service_(service), deps_(deps) {}

StreamRpc::~StreamRpc() { HEARTH_CHECK(streams_.empty()); }

void StreamRpc::Serve(EventLoop& loop) {
  for (int i = 0; i < kArmed; ++i) Stream::Arm(*this, loop);
}

void StreamRpc::End() {
  std::vector<std::shared_ptr<Stream>> streams;
  {
    MutexLock lock(mu_);
    ended_ = true;
    streams.assign(streams_.begin(), streams_.end());
  }
  for (const std::shared_ptr<Stream>& stream : streams) stream->End();
}

}  // namespace hearth
