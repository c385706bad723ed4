#include "client/daemon_tool.h"

#include <spawn.h>
#include <sys/wait.h>
#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <utility>

#include "absl/status/status.h"
#include "client/strings.h"

extern char** environ;

namespace hearth::client {
namespace {

namespace fs = std::filesystem;

// A path, or a name for PATH.
std::string FindHearthd() {
  if (const char* named = std::getenv("HEARTHD"); named != nullptr && *named != '\0') return named;
  std::error_code error;
  const fs::path own = fs::read_symlink("/proc/self/exe", error);
  for (const fs::path& beside : {own.parent_path() / "hearthd", own.parent_path().parent_path() / "server/hearthd"}) {
    if (fs::is_regular_file(beside, error)) return beside.string();
  }
  return "hearthd";
}

}  // namespace

absl::StatusOr<ToolResult> RunHearthd(const std::vector<std::string>& arguments) {
  const std::string program = FindHearthd();
  std::vector<char*> argv = {const_cast<char*>(program.c_str())};
  for (const std::string& argument : arguments) argv.push_back(const_cast<char*>(argument.c_str()));
  argv.push_back(nullptr);

  std::array<int, 2> pipe_ends{};
  if (::pipe2(pipe_ends.data(), O_CLOEXEC) != 0) return absl::InternalError("no pipe could be made");
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, pipe_ends[1], STDOUT_FILENO);
  pid_t child = 0;
  const int failed = ::posix_spawnp(&child, program.c_str(), &actions, nullptr, argv.data(), environ);
  posix_spawn_file_actions_destroy(&actions);
  ::close(pipe_ends[1]);
  if (failed != 0) {
    ::close(pipe_ends[0]);
    return absl::NotFoundError(Cat("'", program, "' cannot be run (", std::strerror(failed),
                                   "), and files are read by it; set HEARTHD to where it is"));
  }
  std::string out;
  std::array<char, 1 << 16> buffer{};
  while (true) {
    const ssize_t got = ::read(pipe_ends[0], buffer.data(), buffer.size());
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) break;
    out.append(buffer.data(), static_cast<std::size_t>(got));
  }
  ::close(pipe_ends[0]);
  int status = 0;
  while (::waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  if (WIFEXITED(status)) return ToolResult{WEXITSTATUS(status), std::move(out)};
  return absl::FailedPreconditionError(
      Cat("hearthd was ended by signal ", WTERMSIG(status), " while it read the file"));
}

}  // namespace hearth::client
