// The yardstick for ModelInfer: gRPC's CompletionQueue API and protobuf, nothing of hearth. Answers
// each request with its own first tensor.
//
//   echo_server [--port 0] [--threads 2]     prints {"port": N}, serves until SIGTERM or SIGINT
#include <grpcpp/grpcpp.h>

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "inference.grpc.pb.h"

namespace {

using inference::GRPCInferenceService;

// One request's memory: waits for a client, answers, dies.
class Echo {
 public:
  Echo(GRPCInferenceService::AsyncService& service, grpc::ServerCompletionQueue& queue)
      : service_(service), queue_(queue) {
    service_.RequestModelInfer(&context_, &request_, &writer_, &queue_, &queue_, this);
  }

  void Proceed(bool ok) {
    if (!ok || answered_) {
      delete this;
      return;
    }
    new Echo(service_, queue_);
    Fill();
    answered_ = true;
    writer_.Finish(response_, grpc::Status::OK, this);
  }

 private:
  void Fill() {
    response_.set_model_name(request_.model_name());
    response_.set_model_version("1");
    response_.set_id(request_.id());
    if (request_.inputs_size() == 0 || request_.raw_input_contents_size() == 0) return;
    auto* output = response_.add_outputs();
    output->set_name("output");
    output->set_datatype(request_.inputs(0).datatype());
    *output->mutable_shape() = request_.inputs(0).shape();
    response_.add_raw_output_contents(request_.raw_input_contents(0));
  }

  GRPCInferenceService::AsyncService& service_;
  grpc::ServerCompletionQueue& queue_;
  grpc::ServerContext context_;
  inference::ModelInferRequest request_;
  inference::ModelInferResponse response_;
  grpc::ServerAsyncResponseWriter<inference::ModelInferResponse> writer_{&context_};
  bool answered_ = false;
};

void Run(grpc::ServerCompletionQueue& queue) {
  void* tag = nullptr;
  bool ok = false;
  while (queue.Next(&tag, &ok)) static_cast<Echo*>(tag)->Proceed(ok);
}

}  // namespace

int main(int argc, char** argv) {
  std::string port = "0";
  int threads = 2;
  for (int i = 1; i + 1 < argc; i += 2) {
    if (std::strcmp(argv[i], "--port") == 0) port = argv[i + 1];
    if (std::strcmp(argv[i], "--threads") == 0) threads = std::atoi(argv[i + 1]);
  }
  // Blocked before any thread starts, so that only the sigwait() below sees them.
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);

  GRPCInferenceService::AsyncService service;
  grpc::ServerBuilder builder;
  int bound = 0;
  builder.AddListeningPort("127.0.0.1:" + port, grpc::InsecureServerCredentials(), &bound);
  builder.SetMaxReceiveMessageSize(-1);
  builder.RegisterService(&service);
  std::vector<std::unique_ptr<grpc::ServerCompletionQueue>> queues;
  for (int i = 0; i < threads; ++i) queues.push_back(builder.AddCompletionQueue());
  const std::unique_ptr<grpc::Server> server = builder.BuildAndStart();
  if (!server || bound == 0) {
    std::fprintf(stderr, "echo_server: cannot listen on port %s\n", port.c_str());
    return 1;
  }
  std::vector<std::thread> pool;
  for (auto& queue : queues) {
    for (int i = 0; i < 64; ++i) new Echo(service, *queue);
    pool.emplace_back([&queue] { Run(*queue); });
  }
  std::printf("{\"port\": %d}\n", bound);
  std::fflush(stdout);

  int signal = 0;
  sigwait(&signals, &signal);
  server->Shutdown();
  for (auto& queue : queues) queue->Shutdown();
  for (auto& thread : pool) thread.join();
  return 0;
}
