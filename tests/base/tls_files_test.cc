#include "server/base/tls_files.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <openssl/bio.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rsa.h>
#include <openssl/x509.h>
#include <stdlib.h>

#include <filesystem>
#include <fstream>
#include <string>

namespace hearth {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::StartsWith;

std::string Drain(BIO* bio) {
  char* data = nullptr;
  const long size = BIO_get_mem_data(bio, &data);
  std::string text(data, static_cast<std::size_t>(size));
  BIO_free(bio);
  return text;
}

// A key and a certificate that it signed for itself, in PEM.
struct Pair {
  explicit Pair(const std::string& name, std::chrono::seconds valid = std::chrono::hours(1), const char* passphrase = nullptr) {
    EVP_PKEY* const pair = EVP_EC_gen("P-256");
    X509* const x509 = X509_new();
    X509_gmtime_adj(X509_getm_notBefore(x509), 0);
    X509_gmtime_adj(X509_getm_notAfter(x509), valid.count());
    X509_set_pubkey(x509, pair);
    X509_NAME_add_entry_by_txt(X509_get_subject_name(x509), "CN", MBSTRING_ASC,
                               reinterpret_cast<const unsigned char*>(name.c_str()), -1, -1, 0);
    X509_set_issuer_name(x509, X509_get_subject_name(x509));
    X509_sign(x509, pair, EVP_sha256());
    BIO* const certificate_out = BIO_new(BIO_s_mem());
    PEM_write_bio_X509(certificate_out, x509);
    certificate = Drain(certificate_out);
    BIO* const key_out = BIO_new(BIO_s_mem());
    PEM_write_bio_PrivateKey(key_out, pair, passphrase == nullptr ? nullptr : EVP_aes_128_cbc(), nullptr, 0, nullptr,
                             const_cast<char*>(passphrase));
    key = Drain(key_out);
    X509_free(x509);
    EVP_PKEY_free(pair);
  }
  std::string certificate, key;
};

class TlsFilesTest : public testing::Test {
 protected:
  TlsFilesTest() {
    std::string pattern = testing::TempDir() + "/hearth-tls-XXXXXX";
    folder_ = ::mkdtemp(pattern.data());
  }
  ~TlsFilesTest() override { std::filesystem::remove_all(folder_); }

  PlacedFile File(const std::string& name, const std::string& text) {
    std::ofstream(folder_ / name) << text;
    return {(folder_ / name).string(), StrCat("f:1:1: key 'tls.", name, "'")};
  }
  absl::StatusOr<TlsMaterial> Read(const std::string& certificate, const std::string& key, const std::string& ca = "") {
    return ReadTlsFiles({File("certificate", certificate), File("key", key), ca.empty() ? PlacedFile{} : File("client_ca", ca)});
  }
  std::string Mistake(const std::string& certificate, const std::string& key, const std::string& ca = "") {
    const auto material = Read(certificate, key, ca);
    EXPECT_EQ(material.status().code(), absl::StatusCode::kInvalidArgument);
    return std::string(FromAbsl(material.status().message()));
  }

  std::filesystem::path folder_;
  const Pair server_{"server"}, other_{"other"};
};

TEST_F(TlsFilesTest, AreReadTogetherWithWhoseTheyAreAndHowLongTheyAreGood) {
  const auto material = Read(server_.certificate + other_.certificate, server_.key, other_.certificate + server_.certificate);
  ASSERT_TRUE(material.ok()) << material.status();
  EXPECT_EQ(material->certificate, server_.certificate + other_.certificate);
  EXPECT_EQ(material->key, server_.key);
  EXPECT_EQ(material->subject, "/CN=server");
  const auto left = material->expires - std::chrono::system_clock::now();
  EXPECT_LT(left, std::chrono::hours(1) + std::chrono::minutes(1));
  EXPECT_GT(left, std::chrono::minutes(50));
}

TEST_F(TlsFilesTest, WhatIsInUseIsAlsoAFileThatIsReplacedWhole) {
  auto first = Read(server_.certificate, server_.key, other_.certificate), second = Read(other_.certificate, other_.key);
  ASSERT_TRUE(first.ok() && second.ok());
  const auto source = TlsSource::Make(*first);
  ASSERT_TRUE(source.ok()) << source.status();
  const auto text = [](const std::string& file) {
    const auto read = ReadSmallFile(file, 1 << 20);
    return read.ok() ? *read : read.status().ToString();
  };
  const std::string identity = (*source)->identity_file(), ca = (*source)->client_ca_file();
  EXPECT_EQ(text(identity), server_.certificate + "\n" + server_.key);
  EXPECT_EQ(text(ca), other_.certificate);
  ASSERT_TRUE((*source)->Set(*second).ok());
  EXPECT_EQ((*source)->current()->subject, "/CN=other");
  EXPECT_EQ((*source)->identity_file(), identity);
  EXPECT_EQ(text(identity), other_.certificate + "\n" + other_.key);
  EXPECT_EQ(text(ca), "");
}

TEST_F(TlsFilesTest, AMistakeNamesTheKeyOfTheConfigurationAndTheFile) {
  EXPECT_THAT(Mistake("no certificate", server_.key),
              AllOf(StartsWith("f:1:1: key 'tls.certificate': "), HasSubstr(folder_.string()), HasSubstr("no certificate in PEM")));
  EXPECT_THAT(Mistake(server_.certificate, "no key"), AllOf(StartsWith("f:1:1: key 'tls.key': "), HasSubstr("no private key")));
  EXPECT_THAT(Mistake(server_.certificate, server_.key, "x"), StartsWith("f:1:1: key 'tls.client_ca': "));
  const auto absent = ReadTlsFiles({{(folder_ / "absent").string(), "here"}, {}, {}});
  EXPECT_THAT(std::string(FromAbsl(absent.status().message())), AllOf(StartsWith("here: "), HasSubstr("absent")));
}

TEST_F(TlsFilesTest, AKeyOfAnotherCertificateIsAMistake) {
  EXPECT_THAT(Mistake(server_.certificate, other_.key), HasSubstr("is not the key of the first certificate"));
  EXPECT_THAT(Mistake(other_.certificate + server_.certificate, server_.key), HasSubstr("is not the key"));
}

TEST_F(TlsFilesTest, AKeyWithAPassphraseIsRefusedAndNobodyIsAskedForIt) {
  const Pair locked("locked", std::chrono::hours(1), "secret");
  EXPECT_THAT(Mistake(locked.certificate, locked.key), HasSubstr("passphrase"));
}

TEST_F(TlsFilesTest, AChainThatIsCutShortIsAMistake) {
  EXPECT_THAT(Mistake(server_.certificate.substr(0, server_.certificate.size() / 2), server_.key), StartsWith("f:1:1: key 'tls.certificate'"));
  EXPECT_THAT(Mistake(server_.certificate + other_.certificate.substr(0, other_.certificate.size() / 2), server_.key),
              HasSubstr("broken"));
}

TEST_F(TlsFilesTest, OneThatHasExpiredIsTakenAsItIs) {
  const Pair old("old", std::chrono::hours(-1));
  const auto material = Read(old.certificate, old.key);
  ASSERT_TRUE(material.ok()) << material.status();
  EXPECT_LT(material->expires, std::chrono::system_clock::now());
}

}  // namespace
}  // namespace hearth
