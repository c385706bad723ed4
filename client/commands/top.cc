// hearth top: the cache, live.
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <tuple>
#include <utility>
#include <vector>

#include "absl/strings/str_format.h"
#include "client/commands/cache_rows.h"
#include "client/commands/command.h"
#include "client/spinner.h"
#include "client/strings.h"
#include "client/units.h"

namespace hearth::client {
namespace {

using Clock = std::chrono::steady_clock;

// Requests answered so far, by model and version, and when that was so.
struct Counts {
  Clock::time_point at{};
  std::map<std::pair<std::string, std::int64_t>, std::uint64_t> requests = {};
};

Counts CountsOf(const ServerStat& stat) {
  Counts counts{Clock::now()};
  for (const ModelStat& model : stat.models) {
    counts.requests[{model.name, model.version}] = model.requests_succeeded + model.requests_failed;
  }
  return counts;
}

// Requests a second since `before`; negative: not known.
double Rate(const ModelStat& model, const Counts& before, const Counts& now) {
  const auto known = before.requests.find({model.name, model.version});
  if (known == before.requests.end() || now.at <= before.at) return -1;
  const std::uint64_t count = model.requests_succeeded + model.requests_failed;
  const std::uint64_t more = count > known->second ? count - known->second : 0;
  return static_cast<double>(more) / std::chrono::duration<double>(now.at - before.at).count();
}

std::string Memory(const std::vector<BudgetStat>& budgets) {
  std::string text;
  for (const BudgetStat& budget : budgets) {
    if (budget.capacity_bytes == 0) continue;
    text += Cat(text.empty() ? "" : ", ", budget.name(), " ", FormatBytes(budget.used_bytes), " of ",
                FormatBytes(budget.capacity_bytes));
    if (budget.lost_bytes > 0) text += Cat(" (", FormatBytes(budget.lost_bytes), " lost)");
  }
  return text;
}

// Those at work first.
std::string Frame(const ServerStat& stat, const Counts& before, const Counts& now, const Context& context) {
  struct Row {
    const ModelStat* model;
    double rate;
  };
  std::vector<Row> rows;
  for (const ModelStat& model : stat.models) rows.push_back({&model, Rate(model, before, now)});
  std::stable_sort(rows.begin(), rows.end(), [](const Row& a, const Row& b) {
    const auto order = [](const Row& row) {
      return std::tuple(-row.model->in_use, -row.rate, row.model->last_used ? SecondsSince(*row.model->last_used) : 1e18);
    };
    return order(a) < order(b);
  });
  std::string out = Cat(Paint(Cat(stat.name, " ", stat.version), Tone::kHeading, context.colors), " at ",
                        context.address, ": ", stat.ready ? "ready" : "not ready", ", up ",
                        FormatSeconds(stat.uptime_seconds), ", requests in flight: ", stat.in_flight, "\n",
                        Memory(stat.memories()), "\n\n");
  if (rows.empty()) return out + "no model is resident\n";
  Table table({"MODEL", ">VERSION", "STATE", ">DEVICE", ">HOST", ">MAPPED", ">IN USE", "PIN", ">REQ/S", ">MEAN",
               "LAST USED"});
  for (const auto& [model, rate] : rows) {
    table.Add({model->name, Cat(model->version), StateCell(*model), DeviceCell(*model), FormatBytes(model->host_bytes), FormatBytes(model->mapped_bytes),
               Cat(model->in_use), std::string(model->pinned ? "yes" : "-"),
               rate < 0 ? std::string("-") : absl::StrFormat("%.1f", rate),
               model->requests_succeeded > 0 ? FormatSeconds(model->mean_request_seconds) : "-",
               model->last_used ? FormatAge(SecondsSince(*model->last_used)) : "never"});
  }
  return out + table.Format(context.colors);
}

// The first lines of `text`, as many as the terminal has but one, where the cursor is.
std::string Fitting(const std::string& text) {
  winsize size{};
  if (::ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) != 0 || size.ws_row < 2) return text;
  std::size_t end = 0;
  for (int lines = size.ws_row - 1; lines > 0; --lines) {
    const std::size_t newline = text.find('\n', end);
    if (newline == text.npos) return text;
    end = newline + 1;
  }
  return text.substr(0, end);
}

int Top(const Context& context, const std::string& every_text) {
  const auto every = ParseDuration(every_text);
  if (!every) return FailUsage(Cat("--every: '", every_text, "' is no duration like 2s"));
  const bool live = !context.json && IsTerminal(STDOUT_FILENO);
  Counts before;
  while (true) {
    const absl::StatusOr<ServerStat> stat = context.client.Stat();
    if (!stat.ok()) return Fail(stat.status());
    if (context.json) {
      nlohmann::ordered_json models = nlohmann::ordered_json::array();
      for (const ModelStat& model : stat->models) models.push_back(ToJson(model));
      return context.PrintJson({{"models", models}});
    }
    Counts now = CountsOf(*stat);
    const std::string frame = Frame(*stat, before, now, context);
    if (!live) return context.Print(frame);
    // From the top left corner on, over what was there.
    if (const int code = context.Print(Cat("\x1b[H\x1b[2J", Fitting(frame))); code != kExitOk) return code;
    before = std::move(now);
    std::this_thread::sleep_for(*every);
  }
}

}  // namespace

void AddTopCommand(CLI::App& app, Selection& selection) {
  auto every = std::make_shared<std::string>("1s");
  CLI::App* top = app.add_subcommand("top", "Watch the cache: memory, models, requests a second; once, if not on a terminal");
  top->add_option("--every", *every, "How often to look again")->type_name("DURATION")->capture_default_str();
  top->callback([every, &selection] {
    selection.run = [every](const Context& context) { return Top(context, *every); };
  });
}

}  // namespace hearth::client
