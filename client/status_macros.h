// Early returns for functions that return absl::Status or absl::StatusOr<T>. For client/*.cc only.
#pragma once

#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

// Evaluates an absl::Status; returns it from the enclosing function if not OK.
#define CLIENT_RETURN_IF_ERROR(expr)                                       \
  do {                                                                     \
    if (absl::Status client_status_ = (expr); !client_status_.ok())        \
      return client_status_;                                               \
  } while (false)

// CLIENT_ASSIGN_OR_RETURN(auto x, Foo());
#define CLIENT_ASSIGN_OR_RETURN(lhs, expr) \
  CLIENT_ASSIGN_OR_RETURN_(CLIENT_CONCAT_(client_or_, __LINE__), lhs, expr)
#define CLIENT_ASSIGN_OR_RETURN_(tmp, lhs, expr) \
  auto tmp = (expr);                             \
  if (!tmp.ok()) return std::move(tmp).status(); \
  lhs = *std::move(tmp)
#define CLIENT_CONCAT_(a, b) CLIENT_CONCAT_INNER_(a, b)
#define CLIENT_CONCAT_INNER_(a, b) a##b
