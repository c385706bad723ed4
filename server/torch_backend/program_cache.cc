#include "server/torch_backend/program_cache.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "server/torch_backend/sha256.h"

namespace hearth {
namespace {

constexpr std::uint64_t kMaxConstantBytes = 1 << 20;

bool BelongsToProgram(std::string_view record) {
  return record == "constants.pkl" || record.starts_with("constants/") ||
         (record.starts_with("code/") && record.ends_with(".py"));
}

// Over the records as they lie in the file: compressed otherwise, the same code is another program.
std::optional<std::string> KeyOf(const ScriptArchive& script, const Device& device) {
  if (script.contents.constants.storage_bytes() > kMaxConstantBytes) return std::nullopt;
  std::vector<const Archive::Record*> records;
  for (const Archive::Record& record : script.archive.records()) {
    if (BelongsToProgram(record.name)) records.push_back(&record);
  }
  std::sort(records.begin(), records.end(), [](const auto* a, const auto* b) { return a->name < b->name; });
  Sha256 hash;
  hash.AddNumber(device.name().size());
  hash.Add(device.name().data(), device.name().size());
  hash.AddNumber(static_cast<std::uint64_t>(script.contents.version));
  for (const Archive::Record* record : records) {
    hash.AddNumber(record->name.size());
    hash.Add(record->name.data(), record->name.size());
    hash.AddNumber(static_cast<std::uint64_t>(record->method));
    hash.AddNumber(record->compressed_size);
    hash.Add(script.file->bytes().data() + record->data_offset, record->compressed_size);
  }
  return hash.Finish();
}

}  // namespace

void ProgramCache::Remove(Entries::iterator entry, Entries& leaving) {
  kept_->count -= 1;
  kept_->bytes -= entry->bytes;
  by_key_.erase(entry->key);
  leaving.splice(leaving.begin(), entries_, entry);
}

ProgramCache::Found ProgramCache::Find(const ScriptArchive& archive, const Device& device) {
  Found found;
  Entries leaving;  // freed after the lock
  if (max_bytes_ > 0) found.key = KeyOf(archive, device);
  if (found.key) {
    MutexLock lock(mu_);
    if (const auto at = by_key_.find(*found.key); at != by_key_.end()) {
      if (at->second->program->spoilt()) {
        Remove(at->second, leaving);
      } else {
        entries_.splice(entries_.begin(), entries_, at->second);
        found.program = at->second->program;
        found.kept = true;
        return found;
      }
    }
  }
  found.program = std::make_shared<ScriptProgram>(archive.contents.version, found.key.has_value());
  return found;
}

void ProgramCache::Keep(const Found& found, std::uint64_t bytes) {
  if (!found.key || found.kept || bytes > max_bytes_) return;
  Entries leaving;
  MutexLock lock(mu_);
  if (by_key_.contains(*found.key)) return;  // somebody loaded the same program meanwhile
  entries_.push_front({*found.key, found.program, bytes});
  by_key_[*found.key] = entries_.begin();
  kept_->count += 1;
  kept_->bytes += bytes;
  while (kept_->bytes > max_bytes_) Remove(std::prev(entries_.end()), leaving);
}

}  // namespace hearth
