// Signals as events on a thread of their own.
#pragma once

#include <functional>
#include <thread>

namespace hearth {

// Blocks the signals it handles in the calling thread, and so in every thread started after it: make
// it first in main(). The handlers run on its thread, one at a time, as ordinary code.
//
// SIGTERM, SIGINT: `terminate` the first time; the second ends the process at once with 128 + signal.
// SIGHUP: `reload`. SIGPIPE is ignored (a client that hangs up is an error of that call alone).
class Signals {
 public:
  Signals();
  ~Signals();  // stops the thread
  Signals(const Signals&) = delete;
  Signals& operator=(const Signals&) = delete;

  struct Handlers {
    std::function<void()> terminate;
    std::function<void()> reload;
  };
  // Call once. Signals that arrived since construction are handled then.
  void Handle(Handlers handlers);

 private:
  void Loop(const Handlers& handlers);
  std::thread thread_;
};

}  // namespace hearth
