#include "server/base/tls_files.h"

#include <fcntl.h>
#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <ctime>
#include <vector>

namespace hearth {
namespace {

constexpr std::size_t kMostBytes = 1 << 20;

template <auto kFree>
struct FreeWith {
  template <typename T>
  void operator()(T* object) const {
    kFree(object);
  }
};
using Bio = std::unique_ptr<BIO, FreeWith<BIO_free>>;
using Certificate = std::unique_ptr<X509, FreeWith<X509_free>>;
using Key = std::unique_ptr<EVP_PKEY, FreeWith<EVP_PKEY_free>>;

// A prompt on a terminal would be waited for.
int NoPassphrase(char*, int, int, void*) { return -1; }

Bio Reader(const std::string& text) { return Bio(BIO_new_mem_buf(text.data(), static_cast<int>(text.size()))); }

// All of them; fewer than there are where one is broken, which `whole` tells.
std::vector<Certificate> CertificatesIn(const std::string& pem, bool& whole) {
  const Bio bio = Reader(pem);
  std::vector<Certificate> certificates;
  while (Certificate next{PEM_read_bio_X509(bio.get(), nullptr, NoPassphrase, nullptr)}) {
    certificates.push_back(std::move(next));
  }
  whole = ERR_GET_REASON(ERR_peek_last_error()) == PEM_R_NO_START_LINE;  // the end, and nothing worse
  ERR_clear_error();
  return certificates;
}

absl::Status Mistake(const PlacedFile& file, std::string_view what) {
  return absl::InvalidArgumentError(StrCat(file.where, ": ", what));
}

absl::StatusOr<std::string> Read(const PlacedFile& file) {
  absl::StatusOr<std::string> text = ReadSmallFile(file.path, kMostBytes);
  if (!text.ok()) return Mistake(file, FromAbsl(text.status().message()));
  return text;
}

absl::StatusOr<std::vector<Certificate>> Certificates(const PlacedFile& file, const std::string& pem) {
  bool whole = false;
  std::vector<Certificate> certificates = CertificatesIn(pem, whole);
  if (certificates.empty() || !whole) {
    return Mistake(file, StrCat(file.path, certificates.empty() ? " holds no certificate in PEM" :
                                " holds a certificate that is broken"));
  }
  return certificates;
}

std::string SubjectOf(X509& certificate) {
  char text[256];
  return X509_NAME_oneline(X509_get_subject_name(&certificate), text, sizeof text);
}

WallTime ExpiryOf(X509& certificate) {
  std::tm expiry{};
  if (ASN1_TIME_to_tm(X509_get0_notAfter(&certificate), &expiry) != 1) return {};
  return WallTime(std::chrono::seconds(::timegm(&expiry)));
}

absl::StatusOr<UniqueFd> InMemory(const std::string& text) {
  UniqueFd fd(::memfd_create("hearth-tls", MFD_CLOEXEC));
  if (!fd) return ErrnoStatus(errno, "memory for certificates");
  std::size_t written = 0;
  while (written < text.size()) {
    const ssize_t some = ::write(fd.get(), text.data() + written, text.size() - written);
    if (some < 0) return ErrnoStatus(errno, "memory for certificates");
    written += static_cast<std::size_t>(some);
  }
  return fd;
}

// Whoever opens the path of `slot` has the old text or the new one, whole.
absl::Status Replace(const UniqueFd& slot, const std::string& text) {
  HEARTH_ASSIGN_OR_RETURN(const UniqueFd next, InMemory(text));
  if (::dup3(next.get(), slot.get(), O_CLOEXEC) < 0) return ErrnoStatus(errno, "memory for certificates");
  return absl::OkStatus();
}

std::string IdentityOf(const TlsMaterial& material) { return StrCat(material.certificate, "\n", material.key); }

}  // namespace

absl::StatusOr<std::unique_ptr<TlsSource>> TlsSource::Make(TlsMaterial material) {
  std::unique_ptr<TlsSource> source(new TlsSource);
  HEARTH_ASSIGN_OR_RETURN(source->identity_, InMemory(""));
  HEARTH_ASSIGN_OR_RETURN(source->client_ca_, InMemory(""));
  HEARTH_RETURN_IF_ERROR(source->Set(std::move(material)));
  return source;
}

absl::Status TlsSource::Set(TlsMaterial material) {
  HEARTH_RETURN_IF_ERROR(Replace(identity_, IdentityOf(material)));
  HEARTH_RETURN_IF_ERROR(Replace(client_ca_, material.client_ca));
  auto next = std::make_shared<const TlsMaterial>(std::move(material));
  MutexLock lock(mu_);
  current_ = std::move(next);
  return absl::OkStatus();
}

absl::StatusOr<TlsMaterial> ReadTlsFiles(const TlsFiles& files) {
  TlsMaterial material;
  HEARTH_ASSIGN_OR_RETURN(material.certificate, Read(files.certificate));
  HEARTH_ASSIGN_OR_RETURN(material.key, Read(files.key));
  HEARTH_ASSIGN_OR_RETURN(const std::vector<Certificate> chain, Certificates(files.certificate, material.certificate));
  const Key key(PEM_read_bio_PrivateKey(Reader(material.key).get(), nullptr, NoPassphrase, nullptr));
  ERR_clear_error();
  if (key == nullptr) {
    return Mistake(files.key, StrCat(files.key.path, " holds no private key in PEM, or one with a passphrase"));
  }
  const bool fits = X509_check_private_key(chain.front().get(), key.get()) == 1;
  ERR_clear_error();
  if (!fits) {
    return Mistake(files.key, StrCat(files.key.path, " is not the key of the first certificate in ", files.certificate.path));
  }
  if (!files.client_ca.path.empty()) {
    HEARTH_ASSIGN_OR_RETURN(material.client_ca, Read(files.client_ca));
    HEARTH_RETURN_IF_ERROR(Certificates(files.client_ca, material.client_ca).status());
  }
  material.subject = SubjectOf(*chain.front());
  material.expires = ExpiryOf(*chain.front());
  return material;
}

}  // namespace hearth
