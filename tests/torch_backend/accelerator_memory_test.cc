#include "server/torch_backend/accelerator_memory.h"

#include <gtest/gtest.h>

#include <stdexcept>

namespace hearth {
namespace {

at::DataPtr Broken(int* frees) {
  return at::DataPtr(frees, frees,
                     [](void* context) {
                       ++*static_cast<int*>(context);
                       throw std::runtime_error("the device is gone");
                     },
                     at::Device(at::kCPU));
}

TEST(KeepErrors, AFreeThatFailsIsCountedAndHurtsNobody) {
  int frees = 0;
  const auto lost = std::make_shared<std::atomic<std::uint64_t>>(0);
  {
    const at::DataPtr memory = KeepErrors(Broken(&frees), 40, "memory of a test", lost);
    EXPECT_EQ(memory.get(), &frees);
    EXPECT_EQ(lost->load(), 0u);
  }
  EXPECT_EQ(frees, 1);
  EXPECT_EQ(lost->load(), 40u);
}

TEST(KeepErrors, NeedsNobodyToCount) {
  int frees = 0;
  { const at::DataPtr memory = KeepErrors(Broken(&frees), 40, "memory of a test", nullptr); }
  EXPECT_EQ(frees, 1);
}

}  // namespace
}  // namespace hearth
