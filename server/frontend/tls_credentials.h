// TLS for gRPC's server, with certificates that are replaced while it runs.
#pragma once

#include <grpcpp/security/server_credentials.h>

#include <memory>

#include "server/base/tls_files.h"

namespace hearth {

// A connection that begins has what is current at `source`, or was a second ago; those there are keep theirs. `source`
// outlives the server.
std::shared_ptr<grpc::ServerCredentials> MakeTlsCredentials(const TlsSource& source, ClientCertificates clients);

}  // namespace hearth
