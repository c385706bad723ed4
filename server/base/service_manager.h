// Telling systemd how we are (sd_notify's datagrams; see systemd's sd_notify(3)).
#pragma once

#include <string>
#include <string_view>

namespace hearth {

// Sends to the socket in $NOTIFY_SOCKET; does nothing where there is none. Never fails: a service
// manager that does not listen is no reason to stop serving. Thread-safe.
class ServiceManager {
 public:
  ServiceManager();  // reads $NOTIFY_SOCKET
  explicit ServiceManager(std::string socket) : socket_(std::move(socket)) {}

  bool present() const { return !socket_.empty(); }
  void Ready(std::string_view status) const;      // after start, and again after Reloading()
  void Reloading() const;                         // carries the monotonic time, as systemd 253 asks
  void Stopping(std::string_view status) const;
  void Status(std::string_view status) const;     // one line for `systemctl status`

 private:
  void Send(const std::string& message) const;
  const std::string socket_;  // "/run/..." or "@abstract"; empty: none
};

}  // namespace hearth
