#include "server/base/service_manager.h"

#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <time.h>

#include <cstddef>
#include <cstdlib>
#include <cstring>

#include "server/base/strings.h"
#include "server/base/unique_fd.h"

namespace hearth {

ServiceManager::ServiceManager()
    : socket_(std::getenv("NOTIFY_SOCKET") != nullptr ? std::getenv("NOTIFY_SOCKET") : "") {}

void ServiceManager::Ready(std::string_view status) const { Send(StrCat("READY=1\nSTATUS=", status)); }

void ServiceManager::Reloading() const {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  Send(StrCat("RELOADING=1\nMONOTONIC_USEC=", now.tv_sec * 1'000'000LL + now.tv_nsec / 1000));
}

void ServiceManager::Stopping(std::string_view status) const {
  Send(StrCat("STOPPING=1\nSTATUS=", status));
}

void ServiceManager::Status(std::string_view status) const { Send(StrCat("STATUS=", status)); }

void ServiceManager::Send(const std::string& message) const {
  sockaddr_un address{};
  if (socket_.empty() || socket_.size() >= sizeof address.sun_path) return;
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, socket_.data(), socket_.size());
  if (socket_.front() == '@') address.sun_path[0] = '\0';  // the abstract namespace
  const UniqueFd fd(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  if (!fd) return;
  // All services of a machine write to systemd's one queue, so a full one deserves a moment:
  // READY=1 should not be lost. But a reader that does not read must not hold up signals.
  const timeval patience{.tv_sec = 0, .tv_usec = 500'000};
  (void)::setsockopt(fd.get(), SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
  const auto length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + socket_.size());
  (void)::sendto(fd.get(), message.data(), message.size(), MSG_NOSIGNAL,
                 reinterpret_cast<const sockaddr*>(&address), length);
}

}  // namespace hearth
