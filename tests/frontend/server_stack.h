// A real gRPC server on a real core, with models that need no files of their own.
#pragma once

#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>

#include "hearth/v1/cache.grpc.pb.h"
#include "inference.grpc.pb.h"
#include "server/base/thread_pool.h"
#include "server/base/timer.h"
#include "server/frontend/grpc_server.h"
#include "server/metrics/metrics.h"
#include "server/residency/model_manager.h"
#include "server/serving/cache_service.h"
#include "server/serving/infer_service.h"
#include "server/serving/repository_service.h"
#include "server/storage/catalog.h"
#include "server/tensor/buffer_pool.h"
#include "tests/fakes/fake_loader.h"

namespace hearth {

// A folder that is there as long as the object.
class TempFolder {
 public:
  TempFolder() {
    std::string pattern = testing::TempDir() + "/hearth-XXXXXX";
    path_ = ::mkdtemp(pattern.data());
  }
  ~TempFolder() { std::filesystem::remove_all(path_); }
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

// Goes as the daemon does: the server first, with every call answered, then the runs that are still
// letting go of what they used.
class ServerStack {
 public:
  explicit ServerStack(GrpcServer::Options options = {}) {
    options.address = "127.0.0.1";
    options.port = 0;
    auto started = GrpcServer::Start({infer, repository, cache, buffers, shared_memory, metrics, clock, access, FakeReload}, options);
    EXPECT_TRUE(started.ok()) << started.status();
    if (!started.ok()) std::abort();
    server = *std::move(started);
  }
  static void FakeReload(bool dry_run, ReloadCallback done) {
    if (!dry_run) return std::move(done)(absl::InvalidArgumentError("one mistake\nanother"));
    std::move(done)(ConfigReload{{{"grpc.port", "8001", "9001", /*needs_restart=*/true}}, {"a note"}});
  }
  ~ServerStack() {
    server.reset();
    compute.Shutdown();
  }

  // A model that the catalog knows, and that does what `script` says.
  void AddModel(const std::string& name, fakes::FakeLoader::Script script = {}) {
    std::ofstream(root.path() / (name + ".pt")) << name;
    loader.Set(name, std::move(script));
    ASSERT_TRUE(catalog.Scan().ok());
  }

  std::shared_ptr<grpc::Channel> Channel() const {
    grpc::ChannelArguments arguments;
    arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);  // a connection of its own
    return grpc::CreateCustomChannel("127.0.0.1:" + std::to_string(server->port()),
                                     grpc::InsecureChannelCredentials(), arguments);
  }
  std::unique_ptr<inference::GRPCInferenceService::Stub> Stub() const {
    return inference::GRPCInferenceService::NewStub(Channel());
  }

  TempFolder root;
  SteadyClock clock;
  Access access{clock};
  Metrics metrics{Metrics::Options{}};
  BufferPool buffers{16 << 20};
  SharedMemory shared_memory{false};
  fakes::FakeLoader loader;
  Catalog catalog{{root.path()}};
  ThreadPool load_threads{{"load", 1, {}}};
  ThreadPool compute{{"compute", 2, {}}};
  ThreadTimer timer;
  ModelManager manager{
      {[this](const ModelId& id) { return catalog.Spec(id); },
       [this](std::string_view) -> absl::StatusOr<const Loader*> { return &loader; }, load_threads,
       timer, clock, metrics},
      {{1 << 30, 1 << 30, 1 << 30}}};
  VersionRoutes versions{{catalog, manager}};
  InferService infer{{catalog, manager, compute, timer, clock, metrics, versions, buffers}};
  RepositoryService repository{{catalog, manager, clock, versions}};
  CacheService cache{{catalog, manager, clock, versions}};
  std::unique_ptr<GrpcServer> server;
};

// A stream of server reflection that asks which services there are.
struct ReflectionStream {
  explicit ReflectionStream(const ServerStack& stack) : stub(stack.Channel()) {
    call = stub.PrepareCall(
        &context, "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", &queue);
    call->StartCall(nullptr);
  }
  // Waits for the operation that was begun last; whether it did what it was begun for.
  bool Next() {
    void* tag = nullptr;
    bool ok = false;
    return queue.Next(&tag, &ok) && ok;
  }

  grpc::GenericStub stub;
  grpc::CompletionQueue queue;
  grpc::ClientContext context;
  std::unique_ptr<grpc::GenericClientAsyncReaderWriter> call;
  grpc::Slice list{"\x3a\x01*"};  // ServerReflectionRequest{list_services: "*"}
};

}  // namespace hearth
