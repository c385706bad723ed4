// LogSettings and TraceSetting: what Triton lets clients change of logs and traces.
#pragma once

#include "inference.grpc.pb.h"
#include "server/frontend/event_loop.h"

namespace hearth {

// Serves both on `loop`.
//
// Triton's four switches of the log stand for the level of ours, each of which includes those above it; a change that
// would leave one out is refused (INVALID_ARGUMENT). Where the log goes, and its format, are the configuration's. It is
// the level of the process until the configuration is reloaded. Requests are not traced, which is what TraceSetting
// answers; to want it otherwise is UNIMPLEMENTED.
void ServeSettings(EventLoop& loop, inference::GRPCInferenceService::AsyncService& service);

}  // namespace hearth
