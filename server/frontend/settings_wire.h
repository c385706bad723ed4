// What Triton lets clients change of logs and traces, and what of it there is.
#pragma once

#include "inference.pb.h"
#include "server/base/status.h"

namespace hearth {

// Triton's four switches of the log stand for the level of ours, each of which includes those above it; a change that
// would leave one out is refused (INVALID_ARGUMENT). Where the log goes, and its format, are the configuration's. It is
// the level of the process until the configuration is reloaded.
absl::Status ChangeLog(const inference::LogSettingsRequest& request);
void FillLog(inference::LogSettingsResponse& response);

// Which requests are traced, and where that is told, is the configuration's (`tracing`): UNIMPLEMENTED for whoever wants it
// otherwise. What Triton would trace to a file is off.
absl::Status ChangeTrace(const inference::TraceSettingRequest& request);
void FillTrace(inference::TraceSettingResponse& response);

}  // namespace hearth
