// A gRPC server around one service and one loop.
#pragma once

#include <grpcpp/grpcpp.h>

#include <memory>
#include <string>

#include "server/frontend/event_loop.h"

namespace hearth {

class MiniServer {
 public:
  explicit MiniServer(grpc::Service& service, Duration stall_timeout = {}) {
    grpc::ServerBuilder builder;
    builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port_);
    builder.RegisterService(&service);
    loop_ = std::make_unique<EventLoop>(builder.AddCompletionQueue(), calls_, guard_, clock_, stall_timeout);
    server_ = builder.BuildAndStart();
  }
  ~MiniServer() { Stop(); }

  // After methods have been registered on loop().
  void Start() { loop_->Start(0); }
  // Waits for calls under way.
  void Stop() {
    server_->Shutdown();
    calls_.WaitForNone(kNoDeadline);
    loop_->Shutdown();
  }

  EventLoop& loop() { return *loop_; }
  std::shared_ptr<grpc::Channel> Channel() const {
    return grpc::CreateChannel("127.0.0.1:" + std::to_string(port_),
                               grpc::InsecureChannelCredentials());
  }

 private:
  int port_ = 0;
  CallCount calls_;
  const SteadyClock clock_;
  Access access_{clock_};
  const RpcGuard guard_{access_};
  std::unique_ptr<grpc::Server> server_;
  std::unique_ptr<EventLoop> loop_;
};

}  // namespace hearth
