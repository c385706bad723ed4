// TLS for the HTTP servers.
#pragma once

#include <boost/asio/ssl/context.hpp>
#include <memory>
#include <string>
#include <vector>

#include "server/base/status.h"
#include "server/base/tls_files.h"

namespace hearth {

// TLS 1.2 and 1.3. Sessions are not resumed: each connection is held to the certificates of its day.
absl::StatusOr<std::shared_ptr<boost::asio::ssl::context>> MakeTlsContext(const TlsMaterial& material,
                                                                          ClientCertificates clients);

// What the client's certificate says it is: its alternative names, or else its common name. Empty: it showed none.
// REQUIRES: the handshake is done, which has verified it.
std::vector<std::string> CertificateNames(SSL* connection);

}  // namespace hearth
