#include "client/render.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <vector>

#include "absl/strings/escaping.h"
#include "client/elements.h"
#include "client/strings.h"
#include "client/utf8.h"

namespace hearth::client {
namespace {

constexpr std::size_t kElideAbove = 64;  // elements
constexpr std::int64_t kEdge = 3;        // shown at each end of a long dimension
constexpr std::size_t kMaxText = 60;     // bytes of one BYTES element

// Cuts at a character's border.
std::string_view Shorten(std::string_view text, std::size_t limit) {
  if (text.size() <= limit) return text;
  while (limit > 0 && (static_cast<unsigned char>(text[limit]) & 0xC0) == 0x80) --limit;
  return text.substr(0, limit);
}

std::string Quote(std::string_view text, bool full) {
  const std::string_view shown = full ? text : Shorten(text, kMaxText);
  std::string out = "\"";
  for (const char c : Printable(shown)) {
    if (c == '"') out += '\\';
    out += c;
  }
  out += '"';
  if (shown.size() < text.size()) out += Cat("... (", text.size(), " bytes)");
  return out;
}

class Renderer {
 public:
  Renderer(const Tensor& tensor, bool full) : tensor_(tensor), full_(full) {
    if (tensor.datatype == DataType::kBytes) elements_ = BytesElements(tensor).value();
    const std::uint64_t count = ElementCount(tensor.shape).value_or(0);
    elide_ = !full && count > kElideAbove;
  }

  std::string Render() {
    List(0, 0, static_cast<std::int64_t>(ElementCount(tensor_.shape).value_or(0)));
    return std::move(out_);
  }

 private:
  std::string Element(std::size_t index) const {
    if (tensor_.datatype == DataType::kBytes) return Quote(elements_[index], full_);
    return FormatNumber(ReadNumber(tensor_, index), tensor_.datatype);
  }

  // The part of the tensor that starts at element `offset`, has `count` of them, and is left after
  // fixing `depth` indices.
  void List(std::size_t depth, std::int64_t offset, std::int64_t count) {
    if (depth == tensor_.shape.size()) {
      out_ += Element(static_cast<std::size_t>(offset));
      return;
    }
    const std::int64_t length = tensor_.shape[depth];
    const std::int64_t step = length == 0 ? 0 : count / length;
    const bool innermost = depth + 1 == tensor_.shape.size();
    const std::string separator = innermost ? ", " : ",\n" + std::string(depth + 1, ' ');
    out_ += '[';
    if (count > 0) {
      for (std::int64_t i = 0; i < length; ++i) {
        if (i > 0) out_ += separator;
        if (elide_ && i == kEdge && length > 2 * kEdge) {
          i = length - kEdge;
          out_ += Cat("... ", length - 2 * kEdge, " more ...", separator);
        }
        List(depth + 1, offset + i * step, step);
      }
    }
    out_ += ']';
  }

  const Tensor& tensor_;
  const bool full_;
  bool elide_ = false;
  std::vector<std::string_view> elements_;
  std::string out_;
};

nlohmann::ordered_json NumberJson(const Number& number, DataType type) {
  if (type == DataType::kBool) return std::get<std::uint64_t>(number) != 0;
  const double* real = std::get_if<double>(&number);
  if (real == nullptr) {
    return std::visit([](auto value) { return nlohmann::ordered_json(value); }, number);
  }
  if (std::isnan(*real)) return "NaN";
  if (std::isinf(*real)) return *real > 0 ? "Infinity" : "-Infinity";
  // The double that is written as the type's own shortest decimal: 0.1, not 0.10000000149011612.
  const std::string text = FormatNumber(number, type);
  double shortest = *real;
  std::from_chars(text.data(), text.data() + text.size(), shortest);
  return shortest;
}

void AppendJson(const nlohmann::ordered_json& json, std::size_t depth, std::string& out) {
  const auto is_plain = [](const auto& value) { return value.is_primitive(); };
  if (!json.is_structured() || json.empty() ||
      (json.is_array() && std::all_of(json.begin(), json.end(), is_plain))) {
    out += json.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
    return;
  }
  out += json.is_object() ? '{' : '[';
  bool first = true;
  for (const auto& [key, value] : json.items()) {
    out += first ? "\n" : ",\n";
    first = false;
    out.append(2 * depth + 2, ' ');
    if (json.is_object()) {
      AppendJson(key, depth, out);
      out += ": ";
    }
    AppendJson(value, depth + 1, out);
  }
  out += '\n';
  out.append(2 * depth, ' ');
  out += json.is_object() ? '}' : ']';
}

}  // namespace

std::string RenderTensor(const Tensor& tensor, bool full) { return Renderer(tensor, full).Render(); }

nlohmann::ordered_json TensorData(const Tensor& tensor) {
  nlohmann::ordered_json data = nlohmann::ordered_json::array();
  if (tensor.datatype == DataType::kBytes) {
    const std::vector<std::string_view> elements = BytesElements(tensor).value();
    for (const std::string_view element : elements) {
      if (IsUtf8(element)) {
        data.push_back(std::string(element));
      } else {
        data.push_back({{"b64", absl::Base64Escape(absl::string_view(element.data(), element.size()))}});
      }
    }
    return data;
  }
  const std::size_t count = tensor.bytes.size() / SizeOf(tensor.datatype);
  for (std::size_t i = 0; i < count; ++i) {
    data.push_back(NumberJson(ReadNumber(tensor, i), tensor.datatype));
  }
  return data;
}

std::string DumpJson(const nlohmann::ordered_json& json) {
  std::string out;
  AppendJson(json, 0, out);
  return out;
}

}  // namespace hearth::client
