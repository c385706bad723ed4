#include "server/storage/pickle_names.h"

#include <algorithm>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace hearth::pickle_internal {
namespace {

// A file can nest long names deep; what is longer is no name that anybody reads.
constexpr std::size_t kMaxName = 1024;

class Namer {
 public:
  explicit Namer(Heap& heap) : heap_(heap), seen_(heap.containers.size()) {
    std::stable_sort(heap_.entries.begin(), heap_.entries.end(),
                     [](const Entry& a, const Entry& b) { return a.dict < b.dict; });
  }

  // As deep as values are nested, which the walk has limited.
  void Visit(const Value& object, const std::string& path) {
    if (object.kind != Kind::kObject || object.number == 0) return;
    const auto dict = static_cast<std::uint32_t>(object.number - 1);
    if (seen_[dict]) return;
    seen_[dict] = true;
    const auto first = std::lower_bound(heap_.entries.begin(), heap_.entries.end(), dict,
                                        [](const Entry& entry, std::uint32_t wanted) { return entry.dict < wanted; });
    for (auto entry = first; entry != heap_.entries.end() && entry->dict == dict; ++entry) {
      if (entry->key.kind != Kind::kString || path.size() + 1 + entry->key.index > kMaxName) continue;
      std::string name = path;
      if (!name.empty()) name += '.';
      name += heap_.Text(entry->key);
      if (entry->value.kind == Kind::kTensor) {
        std::string& given = heap_.summary.tensors[entry->value.index].name;
        if (given.empty()) given = std::move(name);
      } else {
        Visit(entry->value, name);
      }
    }
  }

 private:
  Heap& heap_;
  std::vector<bool> seen_;  // by dictionary
};

}  // namespace

void NameTensors(Heap& heap, const Value& top) { Namer(heap).Visit(top, ""); }

}  // namespace hearth::pickle_internal
