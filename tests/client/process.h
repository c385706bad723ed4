// Runs the real `hearth` binary.
#pragma once

#include <string>
#include <vector>

namespace hearth::client {

struct Outcome {
  int code = -1;
  std::string out;
  std::string err;
};

// Runs it to its end, with no terminal anywhere. `environment`: "NAME=value", added to ours.
Outcome RunHearth(const std::vector<std::string>& arguments,
                  const std::vector<std::string>& environment = {});

// A run whose stdout and stderr are one pseudo-terminal. Confined to one thread.
class TerminalRun {
 public:
  explicit TerminalRun(const std::vector<std::string>& arguments,
                       const std::vector<std::string>& environment = {});
  ~TerminalRun();  // kills and reaps what still runs
  TerminalRun(const TerminalRun&) = delete;
  TerminalRun& operator=(const TerminalRun&) = delete;

  // Reads on until `text` was shown, or until the process ended (false).
  bool WaitFor(const std::string& text);
  // Reads to the end, and the exit code.
  int Finish();
  const std::string& shown() const { return shown_; }

 private:
  bool ReadMore();

  int master_ = -1;
  int pid_ = -1;
  std::string shown_;
};

}  // namespace hearth::client
