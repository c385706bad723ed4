// absl::Status to what gRPC sends.
#pragma once

#include <grpcpp/grpcpp.h>

#include "server/base/status.h"

namespace hearth {

// The codes are the same numbers. A long message (a program's traceback, say) is cut: it travels in
// a header, and clients refuse headers over 8 KiB together with the status that they carry.
grpc::Status ToGrpcStatus(const absl::Status& status);

// The above, and a retry hint twice: as trailing metadata `grpc-retry-pushback-ms`, where clients with a
// retry policy look for it, and as google.rpc.RetryInfo in `grpc-status-details-bin`, where people's code does. The
// latter repeats the message; where both do not fit, the hint goes without it. REQUIRES: the call has not been answered.
grpc::Status ToGrpcStatus(const absl::Status& status, grpc::ServerContext& context);

}  // namespace hearth
