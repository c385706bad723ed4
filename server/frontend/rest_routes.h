// The Open Inference Protocol over HTTP: which path is which call. Triton's and KServe's clients speak it.
//
//   GET  /v2                                            the server
//   GET  /v2/openapi.json                               these paths, for tools (rest_openapi.h)
//   GET  /v2/health/live  /v2/health/ready
//   GET  /v2/models/M[/versions/V]                      metadata
//   GET  /v2/models/M[/versions/V]/ready  /config  /stats
//   POST /v2/models/M[/versions/V]/infer
//   GET  /v2/models/stats                               of all models
//   POST /v2/repository/index
//   POST /v2/repository/models/M/load  /unload
//   and what rest_extensions.h has: shared memory, the log, traces
//
// Bodies may be gzip or deflate, and so are answers to who takes them, binary data apart.
//
// Who may not call one is refused; paths that name the same are one route, however they are spelt.
//
// Each converts, calls one function of serving/, and converts back; the answers say what gRPC's say.
#pragma once

#include <cstdint>
#include <string>

#include "server/base/clock.h"
#include "server/frontend/http_call.h"
#include "server/frontend/http_server.h"
#include "server/metrics/metrics.h"
#include "server/serving/access.h"
#include "server/serving/infer_service.h"
#include "server/serving/repository_service.h"
#include "server/serving/shared_memory.h"
#include "server/tensor/buffer_pool.h"

namespace hearth {

struct RestDeps {
  InferService& infer;
  RepositoryService& repository;
  Metrics& metrics;
  BufferPool& buffers;
  SharedMemory& shared_memory;
  const Clock& clock;
  Access& access;
  std::string server_name;  // as GET /v2 reports them
  std::string server_version;
  std::uint64_t max_body_bytes = 64 << 20;  // of a body that came compressed, once it is not
};

// Never blocks. What `deps` refers to outlives its calls.
HttpCallHandler MakeRestHandler(RestDeps deps);

}  // namespace hearth
