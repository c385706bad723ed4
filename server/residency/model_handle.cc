#include "server/residency/model_handle.h"

#include "server/base/check.h"
#include "server/residency/cache_entry.h"
#include "server/residency/model_cache.h"

namespace hearth {

const Model& ModelHandle::operator*() const {
  HEARTH_DCHECK(entry_ != nullptr);
  return *entry_->model;
}

const ModelId& ModelHandle::id() const {
  HEARTH_DCHECK(entry_ != nullptr);
  return entry_->slot.id;
}

void ModelHandle::Reset() noexcept {
  if (CacheEntry* entry = std::exchange(entry_, nullptr)) entry->cache.Unpin(*entry);
}

}  // namespace hearth
