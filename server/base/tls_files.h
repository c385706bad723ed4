// Certificates, from files that are read together and found good before anybody uses them.
#pragma once

#include <memory>
#include <string>
#include <utility>

#include "server/base/clock.h"
#include "server/base/mutex.h"
#include "server/base/small_file.h"
#include "server/base/status.h"
#include "server/base/unique_fd.h"

namespace hearth {

// What a client is asked for. kRequest: its certificate, if it has one; kMutual: it must have one. Verified either way.
enum class ClientCertificates { kNone, kRequest, kMutual };

struct TlsFiles {
  PlacedFile certificate;  // with those between it and the root after it, PEM
  PlacedFile key;          // PEM, without a passphrase
  PlacedFile client_ca;    // PEM, whoever signs clients' certificates; no path: clients have none
};

struct TlsMaterial {
  std::string certificate, key, client_ca;  // PEM
  std::string subject;                      // of the certificate, for people
  WallTime expires{};
};

// INVALID_ARGUMENT: a file that cannot be read, is not what it should be, or a key of another certificate; the text begins
// with the place that names it. A certificate that has expired is none of these.
absl::StatusOr<TlsMaterial> ReadTlsFiles(const TlsFiles& files);

// What is in use; also as files of this process, in memory only, for a library that insists on files. Of these each is always
// whole. Thread-safe.
class TlsSource {
 public:
  // The error is the machine's: no descriptors.
  static absl::StatusOr<std::unique_ptr<TlsSource>> Make(TlsMaterial material);

  // For connections from now on.
  absl::Status Set(TlsMaterial material) ABSL_LOCKS_EXCLUDED(mu_);
  std::shared_ptr<const TlsMaterial> current() const ABSL_LOCKS_EXCLUDED(mu_) {
    MutexLock lock(mu_);
    return current_;
  }

  std::string identity_file() const { return PathOf(identity_); }    // the certificates and the key
  std::string client_ca_file() const { return PathOf(client_ca_); }  // may be empty

 private:
  TlsSource() = default;
  static std::string PathOf(const UniqueFd& fd) { return StrCat("/proc/self/fd/", fd.get()); }

  UniqueFd identity_, client_ca_;  // their numbers are constant, what they lead to is replaced
  mutable Mutex mu_;
  std::shared_ptr<const TlsMaterial> current_ ABSL_GUARDED_BY(mu_);
};

}  // namespace hearth
