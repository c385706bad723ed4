// How the client shows who it is, and knows whom it talks to: files, as ClientOptions wants their texts.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "client/client.h"

namespace hearth::client {

// Names of files; empty: not given.
struct TrustFiles {
  std::string token_file;
  bool tls = false;  // any of the next three means it, too
  std::string ca, certificate, key;
};

// INVALID_ARGUMENT: a file cannot be read, holds no token, or a certificate has no key; no message has any of their text.
absl::Status ReadTrust(const TrustFiles& files, ClientOptions& options);

}  // namespace hearth::client
