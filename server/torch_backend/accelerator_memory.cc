#include "server/torch_backend/accelerator_memory.h"

#include <utility>

#include "server/base/log.h"
#include "server/base/strings.h"

namespace hearth {
namespace {

struct Block {
  Block(at::DataPtr from, std::size_t size, std::string_view k, std::shared_ptr<std::atomic<std::uint64_t>> lost_bytes)
      : deleter(from.get_deleter()),
        bytes(size),
        kind(k),
        lost(std::move(lost_bytes)),
        context(from.release_context()) {}
  ~Block() {
    if (deleter == nullptr) return;
    try {
      deleter(context);
    } catch (const std::exception& e) {
      if (lost) lost->fetch_add(bytes);
      log::Error(StrCat(kind, " could not be freed"), {{"bytes", bytes}, {"reason", e.what()}});
    }
  }
  const c10::DeleterFnPtr deleter;
  const std::size_t bytes;
  const std::string_view kind;
  const std::shared_ptr<std::atomic<std::uint64_t>> lost;
  void* const context;
};

}  // namespace

at::DataPtr KeepErrors(at::DataPtr memory, std::size_t bytes, std::string_view kind,
                       std::shared_ptr<std::atomic<std::uint64_t>> lost) {
  void* const data = memory.get();
  const at::Device device = memory.device();
  auto* block = new Block(std::move(memory), bytes, kind, std::move(lost));
  return at::DataPtr(data, block, [](void* p) { delete static_cast<Block*>(p); }, device);
}

}  // namespace hearth
