// LogSettings and TraceSetting: what Triton lets clients change of logs and traces.
#pragma once

#include "inference.grpc.pb.h"
#include "server/frontend/event_loop.h"

namespace hearth {

// Serves both on `loop`; what they mean is settings_wire.h.
void ServeSettings(EventLoop& loop, inference::GRPCInferenceService::AsyncService& service);

}  // namespace hearth
