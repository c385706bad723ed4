#include "server/signals.h"

#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include <utility>

#include "server/base/check.h"
#include "server/base/log.h"

namespace hearth {
namespace {

constexpr int kStopSignal = SIGUSR2;  // ours, to end the thread

sigset_t HandledSignals() {
  sigset_t set;
  sigemptyset(&set);
  for (const int signal : {SIGTERM, SIGINT, SIGHUP, kStopSignal}) sigaddset(&set, signal);
  return set;
}

}  // namespace

Signals::Signals() {
  const sigset_t set = HandledSignals();
  HEARTH_CHECK(pthread_sigmask(SIG_BLOCK, &set, nullptr) == 0);
  ::signal(SIGPIPE, SIG_IGN);
}

Signals::~Signals() {
  if (!thread_.joinable()) return;
  pthread_kill(thread_.native_handle(), kStopSignal);
  thread_.join();
}

void Signals::Handle(Handlers handlers) {
  HEARTH_CHECK(!thread_.joinable());
  thread_ = std::thread([this, h = std::move(handlers)] { Loop(h); });
  pthread_setname_np(thread_.native_handle(), "signals");
}

void Signals::Loop(const Handlers& handlers) {
  const sigset_t set = HandledSignals();
  bool terminating = false;
  while (true) {
    int signal = 0;
    if (sigwait(&set, &signal) != 0) continue;
    if (signal == kStopSignal) return;
    if (signal == SIGHUP) {
      if (!terminating) handlers.reload();
      continue;
    }
    if (terminating) {
      log::Warning("second signal: leaving at once", {{"signal", signal}});
      _exit(128 + signal);
    }
    terminating = true;
    handlers.terminate();
  }
}

}  // namespace hearth
