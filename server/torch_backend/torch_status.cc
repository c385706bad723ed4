#include "server/torch_backend/torch_status.h"

#include <algorithm>

namespace hearth {

std::string FirstLine(std::string_view what) {
  what.remove_prefix(std::min(what.find_first_not_of(" \n"), what.size()));
  return std::string(what.substr(0, what.find('\n')));
}

std::string ProgramMessage(std::string_view what) {
  std::string best = FirstLine(what);
  std::size_t at = 0;
  while (at < what.size()) {
    const std::size_t end = std::min(what.find('\n', at), what.size());
    const std::string_view line = what.substr(at, end - at);
    const std::size_t colon = line.find(": ");
    // "RuntimeError: text", "builtins.ValueError: text", "torch.jit.Error: text"; source lines are
    // indented.
    if (colon != std::string_view::npos && !line.starts_with(' ') &&
        line.substr(0, colon).ends_with("Error") &&
        line.substr(0, colon).find(' ') == std::string_view::npos) {
      best = std::string(line);
    }
    at = end + 1;
  }
  // LibTorch's dispatcher goes on with guesses and every kernel there is, kilobytes of them.
  constexpr std::string_view kGuesses = " This could be because the operator doesn't exist";
  if (const std::size_t guesses = best.find(kGuesses); guesses != best.npos) best.resize(guesses);
  if (best.starts_with("Unknown builtin op")) {
    best += " Name the library that registers this operator in torch_libraries.";
  }
  return best;
}

absl::Status StatusOf(std::string_view context, absl::StatusCode code, std::string_view what) {
  constexpr std::string_view kNoMemory = "DefaultCPUAllocator: can't allocate memory: you tried to allocate ";
  const std::size_t at = what.find(kNoMemory);
  if (at == what.npos) return absl::Status(code, StrCat(context, ": ", ProgramMessage(what)));
  const std::string_view rest = what.substr(at + kNoMemory.size());  // "65536 bytes. Error code 12 (...)"
  return absl::ResourceExhaustedError(StrCat(context, ": out of memory, ", rest.substr(0, rest.find('.')), " of it"));
}

}  // namespace hearth
