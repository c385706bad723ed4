#include "server/config/server_config.h"

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <optional>
#include <set>
#include <system_error>

#include "server/base/duration.h"
#include "server/config/environment.h"
#include "server/config/fields.h"

namespace hearth {
namespace {

// 1 of "cuda:1", which is a "cuda". None: it is no device of that type, or has no number.
std::optional<int> NumberOf(std::string_view device, std::string_view type) {
  const bool is_word = !type.empty() && std::all_of(type.begin(), type.end(), [](char c) { return c >= 'a' && c <= 'z'; });
  if (!is_word || !device.starts_with(type) || device.size() == type.size() || device[type.size()] != ':') {
    return std::nullopt;
  }
  const std::string_view digits = device.substr(type.size() + 1);
  int number = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), number);
  if (error != std::errc() || number < 0 || StrCat(number) != digits) return std::nullopt;  // also "01"
  return number;
}

// Fills a ServerConfig from the document; what is absent keeps its default.
class FieldReader {
 public:
  explicit FieldReader(YamlMap& root) : map_(&root) {}

  template <typename Fields>
  void Section(std::string_view key, const Fields& fields) {
    (*map_)[key].Map([&](YamlMap& section) {
      YamlMap* const outer = std::exchange(map_, &section);
      fields();
      map_ = outer;
    });
  }
  void Text(std::string_view key, std::string& text) {
    const YamlNode node = (*map_)[key];
    if (node.Read(text) && text.empty()) node.Error("must not be empty");
  }
  void MaybeText(std::string_view key, std::string& text) { (*map_)[key].Read(text); }
  void Texts(std::string_view key, std::vector<std::string>& texts) {
    const YamlNode node = (*map_)[key];
    if (node.Read(texts) && std::find(texts.begin(), texts.end(), "") != texts.end()) {
      node.Error("has an empty item");
    }
  }
  void Flag(std::string_view key, bool& flag) { (*map_)[key].Read(flag); }
  void Int(std::string_view key, int& value, int min, int max) {
    (*map_)[key].Read(value, min, max);
  }
  void Time(std::string_view key, Duration& time, Duration min) {
    const YamlNode node = (*map_)[key];
    if (node.Read(time) && (time < min || time > kLongestTime)) {
      node.Error(StrCat(FormatDuration(time), " is out of range; it must be between ",
                        FormatDuration(min), " and ", FormatDuration(kLongestTime)));
    }
  }
  void Bytes(std::string_view key, std::uint64_t& bytes, std::uint64_t min, std::uint64_t max) {
    const YamlNode node = (*map_)[key];
    if (node.ReadBytes(bytes) && (bytes < min || bytes > max)) {
      node.Error(StrCat(bytes, " is out of range; it must be between ", min, " and ", max));
    }
  }
  void Size(std::string_view key, BytesOrPercent& size) { ReadSize((*map_)[key], size); }
  void DeviceSizes(std::string_view key, hearth::DeviceSizes& sizes) {
    const YamlNode node = (*map_)[key];
    if (!node.is_map()) return ReadSize(node, sizes.each);
    node.Entries([&](const std::string& device, const YamlNode& size) {
      const std::string_view type = std::string_view(device).substr(0, device.find(':'));
      if (type == "cpu" || !NumberOf(device, type)) {
        return size.Error(StrCat("'", device, "' is no device that memory can be counted of; write cuda:0, or fake:0 for "
                                 "one of devices.fake"));
      }
      sizes.named.push_back({device, BytesOrPercent{}, size.where()});
      ReadSize(size, sizes.named.back().size);
    });
  }
  template <typename Enum, typename Names>
  void Word(std::string_view key, Enum& value, const Names& names) {
    (*map_)[key].ReadEnum(value, names);
  }
  void File(std::string_view key, PlacedFile& file) {
    const YamlNode node = (*map_)[key];
    if (node.Read(file.path)) file.where = PlaceOf(node);
  }
  void Groups(std::string_view key, AccessGroups& groups) { ReadGroups((*map_)[key], groups); }
  void Roles(std::string_view key, std::vector<ServerConfig::Access::Role>& roles) {
    std::set<std::string> seen;
    (*map_)[key].List([&](YamlNode item) {
      ServerConfig::Access::Role role;
      if (!ReadRole(item, role)) return;
      if (!seen.insert(role.name).second) item.Error(StrCat("'", role.name, "' is listed twice"));
      roles.push_back(std::move(role));
    });
  }
  void Models(std::string_view key, std::vector<ServerConfig::Preload>& models) {
    std::set<std::pair<std::string, std::int64_t>> seen;  // 0: the highest version
    (*map_)[key].List([&](YamlNode item) {
      ServerConfig::Preload model;
      if (!ReadModel(item, model)) return;
      if (!seen.emplace(model.name, model.version.value_or(0)).second) {
        item.Error(StrCat("'", model.name, "' is listed twice"));
      }
      models.push_back(std::move(model));
    });
  }

 private:
  static void ReadSize(const YamlNode& node, BytesOrPercent& size) {
    node.ReadWith([&](std::string_view text) -> absl::Status {
      HEARTH_ASSIGN_OR_RETURN(size, BytesOrPercent::Parse(text));
      return absl::OkStatus();
    });
  }

  static std::string PlaceOf(const YamlNode& node) { return StrCat(node.where(), ": key '", node.path(), "'"); }

  static void ReadGroups(const YamlNode& node, AccessGroups& groups) {
    if (!node.present()) return;
    groups = {};
    node.List([&groups](const YamlNode& item) {
      AccessGroup group{};
      if (item.ReadEnum(group, kAccessGroups)) groups.Add(group);
    });
  }

  static bool ReadRole(const YamlNode& item, ServerConfig::Access::Role& role) {
    bool named = false;
    item.Map([&](YamlMap& fields) {
      const YamlNode name = fields["name"].Require(), file = fields["token_file"], groups = fields["groups"].Require();
      named = name.Read(role.name);
      if (named && !IsPlainName(role.name)) name.Error(StrCat("'", role.name, "' is not a name"));
      if (file.Read(role.token_file.path)) {
        if (role.token_file.path.empty()) file.Error("must not be empty");
        role.token_file.where = PlaceOf(file);
      }
      fields["certificate_names"].Read(role.certificate_names);
      ReadGroups(groups, role.groups);
    });
    if (named && role.token_file.path.empty() && role.certificate_names.empty()) {
      item.Error("nobody can have this role: name a token_file or certificate_names");
    }
    return named;
  }

  // `- vad` is short for `- {name: vad}`.
  static bool ReadModel(const YamlNode& item, ServerConfig::Preload& model) {
    bool named = false;
    const auto read_name = [&](const YamlNode& node) {
      named = node.Read(model.name);
      if (named && !IsPlainName(model.name)) {
        node.Error(StrCat("'", model.name,
                          "' is not a model's name: letters, digits, '.', '_' and "
                          "'-', the first a letter or digit, 128 at most"));
      }
    };
    if (item.is_scalar()) {
      read_name(item);
      return named;
    }
    item.Map([&](YamlMap& fields) {
      read_name(fields["name"].Require());
      std::int64_t version = 0;
      if (fields["version"].Read(version, 1)) model.version = version;
      fields["required"].Read(model.required);
      fields["pin"].Read(model.pin);
    });
    return named;
  }

  YamlMap* map_;
};

// Each listener needs a port of its own.
void CheckPorts(const ServerConfig& config, YamlReader& yaml) {
  const ServerConfig defaults;
  struct Listener {
    std::string_view key;
    int port, usual;
  };
  std::vector<Listener> listeners = {{"grpc.port", config.grpc.port, defaults.grpc.port},
                                     {"http.port", config.http.port, defaults.http.port}};
  if (config.rest.enabled) listeners.push_back({"rest.port", config.rest.port, defaults.rest.port});
  for (std::size_t i = 0; i < listeners.size(); ++i) {
    for (std::size_t j = 0; j < i; ++j) {
      if (listeners[i].port == 0 || listeners[i].port != listeners[j].port) continue;
      // Blame the one that somebody chose.
      const bool later = listeners[i].port != listeners[i].usual;
      yaml.ErrorAt(listeners[later ? i : j].key, StrCat(listeners[i].port, " is also ", listeners[later ? j : i].key,
                                                        "; each listener needs a port of its own"));
    }
  }
}

void CheckTls(const ServerConfig& config, YamlReader& yaml) {
  const ServerConfig::Tls& tls = config.tls;
  const bool has_certificate = !tls.certificate.path.empty(), has_ca = !tls.client_ca.path.empty();
  if (has_certificate && tls.key.path.empty()) yaml.ErrorAt("tls.certificate", "needs tls.key");
  if (!has_certificate && !tls.key.path.empty()) yaml.ErrorAt("tls.key", "needs tls.certificate");
  if (!has_certificate && has_ca) yaml.ErrorAt("tls.client_ca", "needs tls.certificate");
  using Encryption = ServerConfig::Encryption;
  const std::pair<std::string_view, Encryption> listeners[] = {
      {"grpc.tls", config.grpc.tls}, {"rest.tls", config.rest.tls}, {"http.tls", config.http.tls}};
  for (const auto& [key, encryption] : listeners) {
    if (encryption == Encryption::kAuto || encryption == Encryption::kOff) continue;
    if (!has_certificate) yaml.ErrorAt(key, "needs tls.certificate");
    if (encryption != Encryption::kServer && !has_ca) yaml.ErrorAt(key, "needs tls.client_ca");
  }
  for (std::size_t i = 0; i < config.access.roles.size(); ++i) {
    if (config.access.roles[i].certificate_names.empty() || has_ca) continue;
    yaml.ErrorAt(StrCat("access.roles[", i, "].certificate_names"), "needs tls.client_ca");
  }
}

// What no single key can tell.
void CheckTogether(const ServerConfig& config, YamlReader& yaml) {
  if (config.repository.roots.empty()) {
    yaml.ErrorAt("repository.roots", "is empty; name at least one directory with models");
  }
  CheckPorts(config, yaml);
  CheckTls(config, yaml);
  const int fakes = config.devices.fake.count;
  for (const DeviceSizes::Named& own : config.cache.budget.device.named) {
    if (NumberOf(own.device, "fake").value_or(-1) >= fakes) {
      yaml.ErrorAt(StrCat("cache.budget.device.", own.device),
                   StrCat("there is no such device; devices.fake.count is ", fakes));
    }
  }
  if (config.cache.failure_backoff > config.cache.max_failure_backoff) {
    yaml.ErrorAt("cache.failure_backoff", StrCat(FormatDuration(config.cache.failure_backoff),
                                                 " is longer than cache.max_failure_backoff, ",
                                                 FormatDuration(config.cache.max_failure_backoff)));
  }
}

}  // namespace

absl::StatusOr<ServerConfig> ParseServerConfig(std::string_view text, const std::string& name,
                                               const std::vector<YamlOverride>& settings,
                                               const Environment& environment) {
  EnvironmentOverrides from_environment = ReadEnvironment(environment, ConfigKeys());
  std::vector<YamlOverride> overrides = std::move(from_environment.overrides);
  overrides.insert(overrides.end(), settings.begin(), settings.end());

  YamlReader yaml(text, name, overrides);
  for (const auto& [variable, message] : from_environment.mistakes)
    yaml.ErrorFrom(variable, message);
  ServerConfig config;
  yaml.root().Map([&](YamlMap& root) {
    FieldReader reader(root);
    VisitFields(reader, config);
  });
  CheckTogether(config, yaml);
  HEARTH_RETURN_IF_ERROR(yaml.status());
  return config;
}

absl::StatusOr<ServerConfig> LoadServerConfig(const std::string& file,
                                              const std::vector<YamlOverride>& settings,
                                              const Environment& environment) {
  if (file.empty()) return ParseServerConfig("", "built-in defaults", settings, environment);
  std::error_code ignored;
  if (std::filesystem::is_directory(file, ignored)) {
    return absl::InvalidArgumentError(StrCat(file, ": is a directory; name the YAML file in it"));
  }
  errno = 0;
  std::ifstream in(file, std::ios::binary);
  if (!in) return ErrnoStatus(errno, StrCat("cannot read the configuration ", file));
  std::string text((std::istreambuf_iterator<char>(in)), std::istreambuf_iterator<char>());
  if (in.bad()) return ErrnoStatus(EIO, StrCat("cannot read the configuration ", file));
  return ParseServerConfig(text, file, settings, environment);
}

}  // namespace hearth
