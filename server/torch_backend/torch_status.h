// What LibTorch throws, as a Status. The only place where its exceptions are caught.
#pragma once

#include <string>
#include <string_view>
#include <type_traits>

#include "server/base/status.h"
#include "server/torch_backend/torch_headers.h"

namespace hearth {

// The first line of an exception's text that says something, without the C++ and TorchScript backtraces.
std::string FirstLine(std::string_view what);

// TorchScript wraps what a program raises into several lines of source and trace. This is the line a
// person wants: the last one that is an error ("RuntimeError: mat1 and mat2 shapes cannot be ...").
std::string ProgramMessage(std::string_view what);

// What was said of `context`. RESOURCE_EXHAUSTED if it says that host memory could not be had, which LibTorch does not
// tell by the exception's type; else `code`.
absl::Status StatusOf(std::string_view context, absl::StatusCode code, std::string_view what);

// Runs `fn`. Out of memory (host or device) is RESOURCE_EXHAUSTED; what LibTorch reports about its
// input is `on_error`; anything else INTERNAL.
template <typename Fn>
[[nodiscard]] auto CatchTorch(std::string_view context, absl::StatusCode on_error, Fn&& fn)
    -> absl::StatusOr<std::invoke_result_t<Fn>> {
  try {
    return std::forward<Fn>(fn)();
  } catch (const c10::OutOfMemoryError& e) {
    return absl::ResourceExhaustedError(StrCat(context, ": ", FirstLine(e.what_without_backtrace())));
  } catch (const c10::Error& e) {
    return StatusOf(context, on_error, e.what_without_backtrace());
  } catch (const std::bad_alloc&) {
    return absl::ResourceExhaustedError(StrCat(context, ": out of memory"));
  } catch (const std::exception& e) {
    return StatusOf(context, on_error, e.what());
  }
}

}  // namespace hearth
