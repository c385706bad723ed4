#include "server/frontend/tls_credentials.h"

#include <grpcpp/security/tls_certificate_provider.h>
#include <grpcpp/security/tls_credentials_options.h>

#include <string>

namespace hearth {
namespace {

namespace tls = grpc::experimental;

constexpr unsigned kSecondsBetweenLooks = 1;

grpc_ssl_client_certificate_request_type RequestOf(ClientCertificates clients) {
  switch (clients) {
    case ClientCertificates::kRequest:
      return GRPC_SSL_REQUEST_CLIENT_CERTIFICATE_AND_VERIFY;
    case ClientCertificates::kMutual:
      return GRPC_SSL_REQUEST_AND_REQUIRE_CLIENT_CERTIFICATE_AND_VERIFY;
    case ClientCertificates::kNone:
      break;
  }
  return GRPC_SSL_DONT_REQUEST_CLIENT_CERTIFICATE;
}

}  // namespace

// The files that are watched are the source's, which holds only what was found good: gRPC takes whatever it reads, a new
// certificate with the old key for instance. Not the callback of grpc_ssl_server_credentials, which would bring every handshake
// the newest: gRPC 1.51 frees the old certificate under handshakes that other threads are beginning with it.
std::shared_ptr<grpc::ServerCredentials> MakeTlsCredentials(const TlsSource& source, ClientCertificates clients) {
  const bool asked = clients != ClientCertificates::kNone;
  const std::string identity = source.identity_file();
  tls::TlsServerCredentialsOptions options(
      asked ? std::make_shared<tls::FileWatcherCertificateProvider>(identity, identity, source.client_ca_file(),
                                                                    kSecondsBetweenLooks)
            : std::make_shared<tls::FileWatcherCertificateProvider>(identity, identity, kSecondsBetweenLooks));
  options.watch_identity_key_cert_pairs();
  if (asked) options.watch_root_certs();
  options.set_cert_request_type(RequestOf(clients));
  return tls::TlsServerCredentials(options);
}

}  // namespace hearth
