// SHA-256, for keys by content.
#pragma once

#include <openssl/evp.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "server/base/check.h"

namespace hearth {

// Thread-compatible.
class Sha256 {
 public:
  Sha256() : context_(EVP_MD_CTX_new(), &EVP_MD_CTX_free) {
    HEARTH_CHECK(EVP_DigestInit_ex(context_.get(), EVP_sha256(), nullptr) == 1);
  }
  void Add(const void* bytes, std::size_t size) {
    HEARTH_CHECK(EVP_DigestUpdate(context_.get(), bytes, size) == 1);
  }
  void AddNumber(std::uint64_t number) { Add(&number, sizeof number); }
  std::string Finish() {
    std::string digest(32, '\0');
    unsigned size = 0;
    HEARTH_CHECK(EVP_DigestFinal_ex(context_.get(), reinterpret_cast<unsigned char*>(digest.data()), &size) == 1);
    return digest;
  }

 private:
  std::unique_ptr<EVP_MD_CTX, decltype(&EVP_MD_CTX_free)> context_;
};

}  // namespace hearth
