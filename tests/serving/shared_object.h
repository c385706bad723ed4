// A POSIX shared memory object, as a client makes it.
#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <string>

#include "server/base/unique_fd.h"

namespace hearth {

// Its name is nobody else's; gone with this.
class SharedObject {
 public:
  explicit SharedObject(off_t size) : key_("/hearth-test-" + std::to_string(::getpid()) + "-" + std::to_string(Next())) {
    object_ = UniqueFd(::shm_open(key_.c_str(), O_RDWR | O_CREAT | O_EXCL, 0600));
    EXPECT_TRUE(object_) << key_;
    Resize(size);
  }
  ~SharedObject() { ::shm_unlink(key_.c_str()); }
  SharedObject(const SharedObject&) = delete;
  SharedObject& operator=(const SharedObject&) = delete;

  const std::string& key() const { return key_; }
  void Resize(off_t size) {
    EXPECT_EQ(::ftruncate(object_.get(), size), 0);
    size_ = size;
  }
  void Set(const std::string& bytes) {
    EXPECT_EQ(::pwrite(object_.get(), bytes.data(), bytes.size(), 0), static_cast<ssize_t>(bytes.size()));
  }
  std::string Get() const {
    std::string bytes(static_cast<std::size_t>(size_), '\0');
    EXPECT_EQ(::pread(object_.get(), bytes.data(), bytes.size(), 0), static_cast<ssize_t>(bytes.size()));
    return bytes;
  }

 private:
  static int Next() {
    static std::atomic<int> next{0};
    return next++;
  }

  const std::string key_;
  UniqueFd object_;
  off_t size_ = 0;
};

}  // namespace hearth
