#include "server/base/service_manager.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstring>
#include <string>

#include "server/base/unique_fd.h"

namespace hearth {
namespace {

using testing::HasSubstr;
using testing::Not;
using testing::StartsWith;

// What systemd's end of $NOTIFY_SOCKET hears, in Linux' abstract namespace.
class Listener {
 public:
  Listener() : name_("hearth-notify-test-" + std::to_string(::getpid())) {
    address_.sun_family = AF_UNIX;
    std::memcpy(address_.sun_path + 1, name_.data(), name_.size());
    EXPECT_EQ(::bind(fd_.get(), reinterpret_cast<sockaddr*>(&address_), length()), 0);
  }
  // Until the queue holds no more.
  void Fill() {
    const UniqueFd sender(::socket(AF_UNIX, SOCK_DGRAM, 0));
    while (::sendto(sender.get(), "x", 1, MSG_DONTWAIT, reinterpret_cast<sockaddr*>(&address_),
                    length()) == 1) {
    }
  }
  std::string address() const { return "@" + name_; }
  std::string Receive() {
    char buffer[512];
    const auto n = ::recv(fd_.get(), buffer, sizeof buffer, MSG_DONTWAIT);
    return n < 0 ? "" : std::string(buffer, static_cast<std::size_t>(n));
  }

 private:
  socklen_t length() const {
    return static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + name_.size());
  }

  std::string name_;
  sockaddr_un address_{};
  UniqueFd fd_{::socket(AF_UNIX, SOCK_DGRAM, 0)};
};

TEST(ServiceManager, SaysReadyReloadingAndStopping) {
  Listener listener;
  const ServiceManager manager(listener.address());
  manager.Ready("serving");
  EXPECT_EQ(listener.Receive(), "READY=1\nSTATUS=serving");
  manager.Reloading();
  EXPECT_THAT(listener.Receive(), StartsWith("RELOADING=1\nMONOTONIC_USEC="));
  manager.Stopping("draining");
  EXPECT_THAT(listener.Receive(), HasSubstr("STOPPING=1"));
}

TEST(ServiceManager, WithoutASocketIsSilent) {
  const ServiceManager manager("");
  EXPECT_FALSE(manager.present());
  manager.Ready("serving");
}

TEST(ServiceManager, DoesNotWaitForAListenerThatDoesNotRead) {
  Listener listener;
  listener.Fill();
  ServiceManager(listener.address()).Stopping("draining");  // comes back
  EXPECT_THAT(listener.Receive(), Not(HasSubstr("STOPPING=1")));
}

TEST(ServiceManager, DoesNotMindThatNobodyListens) {
  ServiceManager("/nonexistent/notify").Ready("serving");
  ServiceManager(std::string(500, 'x')).Ready("serving");
}

}  // namespace
}  // namespace hearth
