// hearth pack: hands over to `hearth-pack`, which runs where PyTorch runs (client/python).
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <string>
#include <vector>

#include "client/commands/command.h"
#include "client/strings.h"

namespace hearth::client {
namespace {

constexpr char kProgram[] = "hearth-pack";

// Returns only when it could not become the other program.
int Pack(std::vector<std::string> arguments) {
  std::string program = kProgram;
  std::vector<char*> argv = {program.data()};
  for (std::string& argument : arguments) argv.push_back(argument.data());
  argv.push_back(nullptr);
  execvp(kProgram, argv.data());
  const int error = errno;
  if (error != ENOENT) {
    return FailUsage(Cat("cannot run ", kProgram, ": ", std::strerror(error)));
  }
  return FailUsage(
      Cat("there is no ", kProgram, " on PATH; it is a Python package: where PyTorch is installed, run "
          "'pip install client/python' in hearth's source tree"));
}

}  // namespace

void AddPackCommand(CLI::App& app, Selection& selection) {
  CLI::App* pack =
      app.add_subcommand("pack", "Make a repository entry of a PyTorch model (by Python's hearth-pack)");
  // Everything behind the command is the other program's, --help and our own options as well.
  pack->set_help_flag();
  pack->fallthrough(false);
  pack->prefix_command();
  pack->callback([pack, &selection] {
    selection.run = [arguments = pack->remaining()](const Context&) { return Pack(arguments); };
  });
}

}  // namespace hearth::client
