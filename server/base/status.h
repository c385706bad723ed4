// Status vocabulary of the whole server.
//
// Every fallible function in server/ returns absl::Status or absl::StatusOr<T>; the codes are
// gRPC's. Input or environment -> Status, with a sentence that says what to do. Our own bug ->
// HEARTH_CHECK. Exceptions live only inside the adapters to libraries that throw (LibTorch,
// yaml-cpp, std::filesystem) and are turned into a Status there.
#pragma once

#include <chrono>
#include <exception>
#include <new>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/base/strings.h"

// Evaluates `expr` (an absl::Status); returns it from the enclosing function if not OK.
#define HEARTH_RETURN_IF_ERROR(expr)                                             \
  do {                                                                           \
    if (absl::Status hearth_status_ = (expr); !hearth_status_.ok()) [[unlikely]] \
      return hearth_status_;                                                     \
  } while (false)

// HEARTH_ASSIGN_OR_RETURN(auto x, Foo());
#define HEARTH_ASSIGN_OR_RETURN(lhs, expr) \
  HEARTH_ASSIGN_OR_RETURN_(HEARTH_CONCAT_(hearth_or_, __LINE__), lhs, expr)
#define HEARTH_ASSIGN_OR_RETURN_(tmp, lhs, expr) \
  auto tmp = (expr);                             \
  if (!tmp.ok()) [[unlikely]]                    \
    return std::move(tmp).status();              \
  lhs = *std::move(tmp)
#define HEARTH_CONCAT_(a, b) HEARTH_CONCAT_INNER_(a, b)
#define HEARTH_CONCAT_INNER_(a, b) a##b

namespace hearth {

// Prepends context, outermost first: "load resnet:3: open model.pt: no such file". OK stays OK;
// code and payloads are kept.
[[nodiscard]] absl::Status Annotate(const absl::Status& status, std::string_view context);

// The Status for a failed system call: ENOENT is NOT_FOUND, EACCES PERMISSION_DENIED, ENOMEM
// RESOURCE_EXHAUSTED, ... The text is "<what>: <strerror>".
[[nodiscard]] absl::Status ErrnoStatus(int error_number, std::string_view what);

// A hint that asking again after `wait` may succeed. Travels as a payload of the Status; the gRPC
// front end sends it as `grpc-retry-pushback-ms` and google.rpc.RetryInfo.
[[nodiscard]] absl::Status WithRetryAfter(absl::Status status, std::chrono::milliseconds wait);
[[nodiscard]] std::optional<std::chrono::milliseconds> RetryAfter(const absl::Status& status);

// Runs `fn` and turns what it throws into a Status: std::bad_alloc becomes RESOURCE_EXHAUSTED,
// everything else INTERNAL. For code around libraries that throw; torch_backend/ has its own.
template <typename Fn>
[[nodiscard]] auto CatchAsStatus(std::string_view what,
                                 Fn&& fn) -> absl::StatusOr<std::invoke_result_t<Fn>> {
  try {
    return std::forward<Fn>(fn)();
  } catch (const std::bad_alloc&) {
    return absl::ResourceExhaustedError(StrCat(what, ": out of memory"));
  } catch (const std::exception& e) {
    return absl::InternalError(StrCat(what, ": ", e.what()));
  }
}

}  // namespace hearth
