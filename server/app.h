// The daemon, put together. Read app.cc from top to bottom: it is the architecture diagram.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "server/base/clock.h"
#include "server/base/status.h"
#include "server/config/server_config.h"

namespace hearth {

// Owns every part, in the order of the include direction; destroys them in reverse. Thread-safe after
// Start().
class App {
 public:
  using ReadConfig = std::function<absl::StatusOr<ServerConfig>()>;

  // `read_config` is called again by Reload(), and when `config_file` changes and config.watch says so; empty: there
  // is no file.
  App(ServerConfig config, ReadConfig read_config, std::string config_file);
  ~App();

  // Brings everything up and starts the preloads; does not wait for them. On error nothing runs.
  absl::Status Start();

  // SIGHUP: reads the configuration again; a bad one changes nothing. Takes over what can be (TakeOver in
  // config/config_diff.h), says what else changed and needs a restart, and rescans the repository. Does not wait for it.
  void Reload();

  // SIGTERM: makes Wait() return. May be called from any thread, more than once.
  void RequestStop();

  // Blocks until RequestStop(), then drains: not ready, finish what runs, unload, hang up.
  // DEADLINE_EXCEEDED when that took longer than shutdown.drain_timeout; the text names what hung, and
  // the process must then exit without destroying this object.
  absl::Status Wait();

 private:
  struct Parts;
  std::unique_ptr<Parts> parts_;
};

// What `hearthd --version` prints and hearth_build_info carries.
std::string Version();

}  // namespace hearth
