#include "server/frontend/settings_rpc.h"

#include <utility>

#include "server/frontend/settings_wire.h"
#include "server/frontend/unary_call.h"

namespace hearth {
namespace {

using AsyncService = inference::GRPCInferenceService::AsyncService;
using LogCall = UnaryCall<inference::LogSettingsRequest, inference::LogSettingsResponse>;
using TraceCall = UnaryCall<inference::TraceSettingRequest, inference::TraceSettingResponse>;

constexpr int kArmed = 4;

// Everybody may look who may call it at all; to change something is another matter.
template <typename Call>
absl::Status CheckChange(Call& call) {
  return call.request().settings().empty() ? absl::OkStatus() : call.Check(AccessGroup::kControl);
}

void Log(LogCall call) {
  absl::Status changed = CheckChange(call);
  if (changed.ok()) changed = ChangeLog(call.request());
  if (changed.ok()) FillLog(call.response());
  std::move(call).Finish(changed);
}

void Trace(TraceCall call) {
  absl::Status changed = CheckChange(call);
  if (changed.ok()) changed = ChangeTrace(call.request());
  if (changed.ok()) FillTrace(call.response());
  std::move(call).Finish(changed);
}

}  // namespace

void ServeSettings(EventLoop& loop, AsyncService& service) {
  ServeUnary(loop, "inference.GRPCInferenceService/LogSettings", service, &AsyncService::RequestLogSettings, kArmed, [](LogCall call) { Log(std::move(call)); });
  ServeUnary(loop, "inference.GRPCInferenceService/TraceSetting", service, &AsyncService::RequestTraceSetting, kArmed,
             [](TraceCall call) { Trace(std::move(call)); });
}

}  // namespace hearth
