#include "tests/client/process.h"

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>

#include "tests/client/fixtures.h"

extern char** environ;

namespace hearth::client {
namespace {

// Ours without what would change the answers, then `extra`, which wins.
std::vector<std::string> Environment(const std::vector<std::string>& extra) {
  std::vector<std::string> all;
  for (char** entry = environ; *entry != nullptr; ++entry) {
    const std::string text(*entry);
    const std::string name = text.substr(0, text.find('=') + 1);
    const bool replaced = std::any_of(extra.begin(), extra.end(),
                                      [&](const std::string& own) { return own.starts_with(name); });
    if (!replaced && !text.starts_with("HEARTH_") && !text.starts_with("NO_COLOR=") && !text.starts_with("TERM=")) {
      all.push_back(text);
    }
  }
  all.insert(all.end(), extra.begin(), extra.end());
  return all;
}

std::vector<char*> Pointers(std::vector<std::string>& texts) {
  std::vector<char*> pointers;
  for (std::string& text : texts) pointers.push_back(text.data());
  pointers.push_back(nullptr);
  return pointers;
}

int Spawn(const std::vector<std::string>& arguments, const std::vector<std::string>& extra,
          const std::string& out, const std::string& err) {
  std::vector<std::string> argv = {"hearth"};
  argv.insert(argv.end(), arguments.begin(), arguments.end());
  std::vector<std::string> environment = Environment(extra);
  constexpr int kFlags = O_RDWR | O_CREAT | O_NOCTTY;
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, out.c_str(), kFlags, 0600);
  posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, err.c_str(), kFlags, 0600);
  pid_t pid = -1;
  const int error = posix_spawn(&pid, HEARTH_CLI_BINARY, &actions, nullptr, Pointers(argv).data(),
                                Pointers(environment).data());
  posix_spawn_file_actions_destroy(&actions);
  EXPECT_EQ(error, 0) << HEARTH_CLI_BINARY;
  return pid;
}

int Reap(int pid) {
  int status = 0;
  EXPECT_EQ(waitpid(pid, &status, 0), pid);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

}  // namespace

Outcome RunHearth(const std::vector<std::string>& arguments, const std::vector<std::string>& environment) {
  const TempDir folder;
  const std::string out = folder.Path("out"), err = folder.Path("err");
  Outcome outcome;
  outcome.code = Reap(Spawn(arguments, environment, out, err));
  outcome.out = ReadFile(out).value_or("");
  outcome.err = ReadFile(err).value_or("");
  return outcome;
}

TerminalRun::TerminalRun(const std::vector<std::string>& arguments,
                         const std::vector<std::string>& environment) {
  master_ = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
  EXPECT_GE(master_, 0);
  EXPECT_EQ(grantpt(master_), 0);
  EXPECT_EQ(unlockpt(master_), 0);
  const std::string slave = ptsname(master_);
  pid_ = Spawn(arguments, environment, slave, slave);
}

TerminalRun::~TerminalRun() {
  if (pid_ > 0) {
    kill(pid_, SIGKILL);
    Reap(pid_);
  }
  close(master_);
}

bool TerminalRun::ReadMore() {
  char buffer[4096];
  const ssize_t got = read(master_, buffer, sizeof(buffer));
  if (got <= 0) return false;  // EIO: nobody has the other side open any more
  shown_.append(buffer, static_cast<std::size_t>(got));
  return true;
}

bool TerminalRun::WaitFor(const std::string& text) {
  while (shown_.find(text) == std::string::npos) {
    if (!ReadMore()) return false;
  }
  return true;
}

int TerminalRun::Finish() {
  while (ReadMore()) {
  }
  const int code = Reap(pid_);
  pid_ = -1;
  return code;
}

}  // namespace hearth::client
