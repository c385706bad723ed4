// hearth.v1.Config: the configuration of the server that runs.
#pragma once

#include <functional>

#include "absl/functional/any_invocable.h"
#include "hearth/v1/config.grpc.pb.h"
#include "server/base/config_change.h"
#include "server/base/status.h"
#include "server/frontend/event_loop.h"

namespace hearth {

// Answers on any thread, once; dropped unanswered when the server stops. Does not block.
using ReloadCallback = absl::AnyInvocable<void(absl::StatusOr<ConfigReload>) &&>;
using ReloadConfig = std::function<void(bool dry_run, ReloadCallback done)>;

// Serves Reload of `service` on `loop`. `reload`: null, there is none to reload: UNIMPLEMENTED.
void ServeConfig(EventLoop& loop, hearth::v1::Config::AsyncService& service, const ReloadConfig& reload);

}  // namespace hearth
