#include "server/frontend/config_rpc.h"

#include <string>
#include <utility>

#include "server/frontend/unary_call.h"

namespace hearth {
namespace {

using AsyncService = hearth::v1::Config::AsyncService;
using ReloadCall = UnaryCall<hearth::v1::ReloadRequest, hearth::v1::ReloadResponse>;

constexpr int kArmed = 1;

void Fill(const ConfigReload& reload, hearth::v1::ReloadResponse& wire) {
  for (const ConfigChange& change : reload.changes) {
    hearth::v1::ConfigChange* to = wire.add_changes();
    to->set_key(change.key);
    to->set_before(change.before);
    to->set_after(change.after);
    to->set_needs_restart(change.needs_restart);
  }
  for (const std::string& note : reload.notes) wire.add_notes(note);
}

void Reload(ReloadCall call, const ReloadConfig& reload) {
  if (!reload) {
    std::move(call).Finish(absl::UnimplementedError("this server has no configuration to reload"));
    return;
  }
  const bool dry_run = call.request().dry_run();
  reload(dry_run, [call = std::move(call)](absl::StatusOr<ConfigReload> done) mutable {
    if (done.ok()) Fill(*done, call.response());
    std::move(call).Finish(done.status());
  });
}

}  // namespace

void ServeConfig(EventLoop& loop, AsyncService& service, const ReloadConfig& reload) {
  ServeUnary(loop, "hearth.v1.Config/Reload", service, &AsyncService::RequestReload, kArmed,
             [reload](ReloadCall call) { Reload(std::move(call), reload); });
}

}  // namespace hearth
