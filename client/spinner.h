// Tells somebody at a terminal that something long is under way.
#pragma once

#include <string>
#include <thread>

namespace hearth::client {

// "| loading resnet  3.2 s" on stderr, from a third of a second after construction until destruction,
// which wipes it off again. Does nothing at all where stderr is no terminal (or a dumb one).
// Owns a thread; confined to the thread that made it.
class Spinner {
 public:
  explicit Spinner(std::string text);
  ~Spinner();
  Spinner(const Spinner&) = delete;
  Spinner& operator=(const Spinner&) = delete;

 private:
  std::jthread thread_;
};

// May control sequences be sent there? Not to pipes and files, nor where TERM is unset or "dumb".
bool IsTerminal(int fd);

}  // namespace hearth::client
