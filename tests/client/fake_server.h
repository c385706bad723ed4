// A server of the protocol, in this process and on a free port, with answers that are known by heart.
//
// Models: "echo" gives each input back under its own name and remembers the request; "stuck" answers
// nothing until Release(); "typed" answers in typed contents; "liar" contradicts itself; "verbose" fails
// with two lines; "listed" only has metadata, with the output "z"; anything else is NOT_FOUND. Thread-safe.
#pragma once

#include <grpcpp/grpcpp.h>

#include <condition_variable>
#include <memory>
#include <mutex>
#include <string>

#include "grpc/health/v1/health.grpc.pb.h"
#include "hearth/v1/cache.grpc.pb.h"
#include "hearth/v1/config.grpc.pb.h"
#include "inference.grpc.pb.h"

namespace hearth::client {

class FakeServer final {
 public:
  struct Options {
    bool ready = true;
    bool with_cache = true;        // and the other services of hearth; else as a server that is not hearthd
    bool with_devices = false;     // two, and the cache's models are on the second
    bool bad_config = false;       // has two mistakes in its configuration
    std::string reason = {};       // of the failed model in the index
    std::string address = "127.0.0.1:0";
  };
  explicit FakeServer(Options options);
  FakeServer() : FakeServer(Options()) {}
  ~FakeServer();

  const std::string& address() const { return address_; }
  // Lets go of every call for "stuck", now and later.
  void Release();
  // The latest ModelInfer.
  inference::ModelInferRequest last_request();

 private:
  class Inference;
  class Cache;
  class Config;
  class Health;

  std::string address_;
  std::unique_ptr<Inference> inference_;
  std::unique_ptr<Cache> cache_;
  std::unique_ptr<Config> config_;
  std::unique_ptr<Health> health_;
  std::unique_ptr<grpc::Server> server_;
};

}  // namespace hearth::client
